"""What correct replicas say on the wire must not contradict what they said before (R2, R27, R46).

Looked at from outside, restarts included: a vote that left before it was durable, and was forgotten
in a power cut, shows as soon as the replica votes otherwise (R39).
"""

from pbft.codec import decode_body
from pbft.messages import (
    Body,
    Checkpoint,
    Commit,
    Envelope,
    Packet,
    Prepare,
    PrePrepare,
    Proposal,
    ViewChange,
)

_VOTE_TAGS = frozenset(range(1, 6))  # PRE-PREPARE ... VIEW-CHANGE; see pbft.messages
_TAG_AT = 1  # in an encoded body, after the array's head

Said = tuple[str, int, int]


class Promises:
    """Remembers every vote of every correct replica."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, Said], bytes] = {}
        self._left: dict[int, int] = {}
        self.failures: list[str] = []

    def sent(self, replica: int, packet: Packet) -> None:
        """`packet` has left the correct `replica`."""
        envelope = packet.pre_prepare if isinstance(packet, Proposal) else packet
        if not isinstance(envelope, Envelope) or envelope.body[_TAG_AT] not in _VOTE_TAGS:
            return
        body = decode_body(envelope.body)
        if getattr(body, "replica", None) == replica:
            self._vote(replica, body, envelope)

    def _vote(self, replica: int, body: Body, envelope: Envelope) -> None:
        said, digest = _statement(body, envelope)
        known = self._said.setdefault((replica, said), digest)
        if known != digest:
            kind, view, seq = said
            self._fail(f"replica {replica} sent two {kind} for view {view}, seq {seq}")
        left = self._left.get(replica, 0)
        if isinstance(body, ViewChange):
            self._left[replica] = max(left, body.view)
        elif not isinstance(body, Checkpoint) and said[1] < left:
            self._fail(f"replica {replica} sent a {said[0]} in view {said[1]} after leaving it")

    def _fail(self, what: str) -> None:
        self.failures.append(f"promise: {what}")


def _statement(body: Body, envelope: Envelope) -> tuple[Said, bytes]:
    """What may be said only once, and what was said."""
    match body:
        case PrePrepare() | Prepare() | Commit():
            return (type(body).__name__, body.view, body.seq), body.digest
        case Checkpoint():
            return ("Checkpoint", 0, body.seq), body.digest
        case ViewChange():
            return ("ViewChange", body.view, 0), envelope.body
        case _:
            raise AssertionError("not a vote")
