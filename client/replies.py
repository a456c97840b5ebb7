"""Collecting signed replies to one bundle until w distinct replicas agree (R13).

What must match is the whole leaf. Roots, views and sequence numbers differ between honest replicas
and are never compared. Nothing expensive is done for a leaf before w replicas have sent it.
"""

from dataclasses import dataclass

from client.envelopes import Envelopes
from crypto.merkle import root_from_path
from pbft.codec import reply_leaf
from pbft.messages import EXECUTED, BatchReplies, Reply, ReplyLeaf

LEAVES_PER_REPLICA = 3  # a correct replica may say executed, then out of window, then expired


@dataclass(frozen=True, slots=True)
class ProvedReply:
    """A reply whose path and signature have been checked, with its opened header."""

    reply: Reply
    header: BatchReplies


def prove(envelopes: Envelopes, replica: int, reply: Reply, leaf: bytes) -> ProvedReply | None:
    """Check that `replica` has signed `reply`, whose leaf encodes to `leaf`; None if not."""
    header = envelopes.header(replica, reply.header)
    if header is None:
        return None
    try:
        root = root_from_path(leaf, reply.index, reply.path)
    except ValueError:
        return None
    return ProvedReply(reply, header) if root == header.root else None


class _Candidates:
    """The replies of distinct replicas with one and the same leaf."""

    __slots__ = ("leaf", "proved", "unproved")

    def __init__(self, leaf: bytes) -> None:
        self.leaf = leaf
        self.unproved: dict[int, Reply] = {}
        self.proved: dict[int, ProvedReply] = {}

    def __len__(self) -> int:
        return len(self.proved) + len(self.unproved)

    def __contains__(self, replica: int) -> bool:
        return replica in self.proved or replica in self.unproved

    def prove(self, envelopes: Envelopes, enough: int) -> None:
        """Check replies until `enough` are proved; throw away those that fail."""
        while self.unproved and len(self.proved) < enough:
            replica, reply = self.unproved.popitem()
            proved = prove(envelopes, replica, reply, self.leaf)
            if proved is not None:
                self.proved[replica] = proved


class ReplyCollector:
    """The replies to the request with `digest`, a bundle of `operations` operations."""

    __slots__ = ("_candidates", "_digest", "_enough", "_envelopes", "_operations")

    def __init__(self, envelopes: Envelopes, digest: bytes, operations: int, enough: int) -> None:
        self._envelopes = envelopes
        self._digest = digest
        self._operations = operations
        self._enough = enough
        self._candidates: dict[bytes, _Candidates] = {}

    def add(self, replica: int, reply: Reply) -> dict[int, ProvedReply] | None:
        """Take one reply that came from `replica`: w proved ones with its leaf, or None so far."""
        leaf = reply_leaf(reply.leaf)
        candidates = self._candidates.get(leaf)
        if candidates is None:
            if self._leaves_of(replica) >= LEAVES_PER_REPLICA:
                return None
            candidates = self._candidates[leaf] = _Candidates(leaf)
        if replica not in candidates:
            candidates.unproved[replica] = reply
        return self._decide(candidates, reply.leaf)

    def _leaves_of(self, replica: int) -> int:
        return sum(1 for candidates in self._candidates.values() if replica in candidates)

    def _decide(self, candidates: _Candidates, leaf: ReplyLeaf) -> dict[int, ProvedReply] | None:
        if len(candidates) < self._enough or not self._answers(leaf):
            return None
        candidates.prove(self._envelopes, self._enough)
        if not candidates:
            del self._candidates[candidates.leaf]
        return candidates.proved if len(candidates.proved) >= self._enough else None

    def _answers(self, leaf: ReplyLeaf) -> bool:
        """Whether `leaf` is bound to our request and has a result for each operation."""
        complete = leaf.status != EXECUTED or len(leaf.results) == self._operations
        return leaf.request == self._digest and complete

    def others(self, accepted: bytes) -> list[tuple[int, Reply]]:
        """The unchecked replies with another leaf than `accepted`."""
        return [
            (replica, reply)
            for leaf, candidates in self._candidates.items()
            if leaf != accepted
            for replica, reply in (
                *candidates.unproved.items(),
                *((replica, proved.reply) for replica, proved in candidates.proved.items()),
            )
        ]
