"""Remembering signed replies that contradict an accepted outcome.

Only lasting statements about one (client, session, bundle) are compared: that it was executed with
these results, or that another bundle took its number. That a session has expired or a number is out
of the window may become true later, so it contradicts nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass

from client.envelopes import Envelopes
from client.replies import ProvedReply, prove
from pbft.codec import reply_leaf
from pbft.messages import CONFLICT, EXECUTED, Reply, ReplyLeaf

SUSPICIONS_PER_REPLICA = 16
REMEMBERED_OUTCOMES = 64
MAX_REMEMBERED_BYTES = 64 * 1024
_LASTING = (EXECUTED, CONFLICT)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`reply`, signed by `replica`, contradicts what w replicas have signed (`accepted`)."""

    replica: int
    reply: Reply
    accepted: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    leaf: ReplyLeaf
    accepted: tuple[Reply, ...]


class Suspicions:
    """A bounded list of suspicions, and the latest outcomes against which late replies are held."""

    def __init__(self, envelopes: Envelopes) -> None:
        self._envelopes = envelopes
        self._outcomes: OrderedDict[tuple[int, int], _Outcome] = OrderedDict()
        self._found: dict[int, list[Suspicion]] = {}

    def found(self) -> tuple[Suspicion, ...]:
        """All that is remembered, by replica: its first ones."""
        return tuple(found for _, all_of in sorted(self._found.items()) for found in all_of)

    def accepted(self, replies: dict[int, ProvedReply], others: list[tuple[int, Reply]]) -> None:
        """An outcome was accepted on `replies`, while `others` said something else."""
        proofs = tuple(proved.reply for _, proved in sorted(replies.items()))
        outcome = _Outcome(proofs[0].leaf, proofs)
        if len(reply_leaf(outcome.leaf)) > MAX_REMEMBERED_BYTES:
            return
        self._outcomes[(outcome.leaf.session, outcome.leaf.bundle)] = outcome
        if len(self._outcomes) > REMEMBERED_OUTCOMES:
            self._outcomes.popitem(last=False)
        for replica, reply in others:
            self.late(replica, reply)

    def late(self, replica: int, reply: Reply) -> bool:
        """Hold `reply` against the outcome of its bundle: whether it is a new suspicion."""
        outcome = self._outcomes.get((reply.leaf.session, reply.leaf.bundle))
        if outcome is None or not _contradicts(reply.leaf, outcome.leaf):
            return False
        known = self._found.get(replica, ())
        leaf = reply_leaf(reply.leaf)
        if len(known) >= SUSPICIONS_PER_REPLICA or len(leaf) > MAX_REMEMBERED_BYTES:
            return False
        if any(found.reply.leaf == reply.leaf for found in known):
            return False
        if prove(self._envelopes, replica, reply, leaf) is None:
            return False
        self._found.setdefault(replica, []).append(Suspicion(replica, reply, outcome.accepted))
        return True


def _contradicts(said: ReplyLeaf, accepted: ReplyLeaf) -> bool:
    lasting = said.status in _LASTING and accepted.status in _LASTING
    return lasting and said != accepted
