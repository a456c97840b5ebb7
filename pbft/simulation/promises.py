"""What correct replicas say on the wire must not contradict what they said before (R2, R27, R46).

Looked at from outside, restarts included: a vote that left before it was durable, and was forgotten
in a power cut, shows as soon as the replica votes otherwise (R39). So does a prepared certificate
that a COMMIT stood for and that a later VIEW-CHANGE leaves out, a STATUS in a view that was left, a
start of another replica that was remembered and is no more (R41), and a second result of one
request.
"""

from pbft.codec import decode_body, encode
from pbft.messages import (
    EXECUTED,
    Body,
    Checkpoint,
    Commit,
    Envelope,
    IncarnationSeen,
    NewView,
    Packet,
    Prepare,
    PrePrepare,
    Proposal,
    Reply,
    ReplyLeaf,
    Status,
    ViewChange,
)

_PROMISE_TAGS = frozenset((*range(1, 7), 8, 14))
"""PRE-PREPARE ... NEW-VIEW, STATUS, INCARNATION-SEEN; see pbft.messages."""
_TAG_AT = 1  # in an encoded body, after the array's head

Said = tuple[str | bytes, int, int]


class Promises:
    """Remembers every vote of every correct replica."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, Said], bytes] = {}
        self._left: dict[int, int] = {}
        self._starts: dict[tuple[int, int], int] = {}
        self._committed: dict[int, dict[int, int]] = {}  # replica: seq: the highest view
        self._amnesiac: dict[int, None] = {}
        self.failures: list[str] = []

    def forgot(self, replica: int) -> None:
        """Its disk is another one: it may not know where it was, but it must not vote (R41)."""
        self._amnesiac[replica] = None

    def recovered(self, replica: int) -> None:
        """What it has forgotten no longer matters."""
        self._amnesiac.pop(replica, None)

    def sent(self, replica: int, packet: Packet) -> None:
        """`packet` has left the correct `replica`."""
        if isinstance(packet, Reply):
            self._result(replica, packet.leaf)
        envelope = packet.pre_prepare if isinstance(packet, Proposal) else packet
        if isinstance(envelope, Envelope) and envelope.body[_TAG_AT] in _PROMISE_TAGS:
            body = decode_body(envelope.body)
            if getattr(body, "replica", None) == replica:
                self._spoke(replica, body, envelope)

    def last_commit(self, replica: int) -> int:
        """The highest sequence number for which it has sent a COMMIT, 0 for none."""
        return max(self._committed.get(replica, ()), default=0)

    def _spoke(self, replica: int, body: Body, envelope: Envelope) -> None:
        if isinstance(body, IncarnationSeen):
            self._start_remembered(replica, body)
        elif isinstance(body, Status):
            if body.view < self._left.get(replica, 0) and replica not in self._amnesiac:
                self._fail(f"replica {replica} is in view {body.view} after leaving it")
        else:
            self._vote(replica, body, envelope)
        if isinstance(body, NewView):
            for proposal in body.pre_prepares:
                self._vote(replica, decode_body(proposal.body), proposal)

    def _vote(self, replica: int, body: Body, envelope: Envelope) -> None:
        said, digest = _statement(body, envelope)
        known = self._said.setdefault((replica, said), digest)
        kind, view, seq = said
        if known != digest:
            self._fail(f"replica {replica} sent two {kind!s} for view {view}, seq {seq}")
        left = self._left.get(replica, 0)
        if isinstance(body, ViewChange):
            self._left[replica] = max(left, body.view)
            if body.view > left:
                self._check_certificates(replica, body)
        elif not isinstance(body, Checkpoint) and view < left:
            self._fail(f"replica {replica} sent a {kind!s} in view {view} after leaving it")
        if isinstance(body, Commit):
            committed = self._committed.setdefault(replica, {})
            committed[body.seq] = max(body.view, committed.get(body.seq, 0))

    def _check_certificates(self, replica: int, change: ViewChange) -> None:
        """A COMMIT says that a certificate is here: it is in every VIEW-CHANGE to come (R28)."""
        shown: dict[int, int] = {}
        for proof in change.prepared:
            prepared = decode_body(proof.pre_prepare.body)
            assert isinstance(prepared, PrePrepare)
            shown[prepared.seq] = prepared.view
        for seq, view in self._committed.get(replica, {}).items():
            if seq > change.stable_seq and shown.get(seq, -1) < view:
                self._fail(
                    f"replica {replica} sent a COMMIT for view {view}, seq {seq}, and a ViewChange "
                    f"for view {change.view} without its certificate"
                )

    def _start_remembered(self, replica: int, body: IncarnationSeen) -> None:
        known = self._starts.get((replica, body.about), 0)
        if body.highest < known and replica not in self._amnesiac:
            self._fail(f"replica {replica} has forgotten start {known} of replica {body.about}")
        self._starts[replica, body.about] = body.highest

    def _result(self, replica: int, leaf: ReplyLeaf) -> None:
        if leaf.status == EXECUTED:
            result = encode(leaf)
            said = replica, (leaf.client + leaf.request, leaf.session, leaf.bundle)
            if self._said.setdefault(said, result) != result:
                self._fail(f"replica {replica} sent two results of bundle {leaf.bundle}")

    def _fail(self, what: str) -> None:
        self.failures.append(f"promise: {what}")


def _statement(body: Body, envelope: Envelope) -> tuple[Said, bytes]:
    """What may be said only once, and what was said."""
    match body:
        case PrePrepare() | Prepare() | Commit():
            return (type(body).__name__, body.view, body.seq), body.digest
        case Checkpoint():
            return ("Checkpoint", 0, body.seq), body.digest
        case ViewChange() | NewView():
            return (type(body).__name__, body.view, 0), envelope.body
        case _:
            raise AssertionError("not a vote")
