"""What a step asks for: one frozen `Output`, whose fields are carried out in their order.

First everything in `persist` becomes durable in one transaction. Only then (R39) are `own`
messages handed back to the core, `sends` sent, batches executed, and clients answered. `wake_at`
replaces the earlier wish. If `halt` is set the replica stops for that reason once the rest is
done.
"""

from msgspec import Struct

from pbft.core.batches import BatchContent
from pbft.messages import (
    Body,
    Envelope,
    FetchState,
    Packet,
    Read,
    Request,
    StateNodes,
    StateQuery,
    StateSummary,
    StatusQuery,
    Verified,
)


class Write(Struct, frozen=True):
    """One record of the log; `value` None deletes it."""

    table: str
    key: bytes
    value: bytes | None


class Send(Struct, frozen=True):
    """A packet for one replica, or for all others where `to` is None."""

    to: int | None
    packet: Packet


class Execute(Struct, frozen=True):
    """Apply this committed batch: it is the next one in order (R8)."""

    seq: int
    view: int
    content: BatchContent
    checkpoint: bool  # digest and flush the state right after it


class BeginTransfer(Struct, frozen=True):
    """Give up the local state for the certified one (`summary` was checked against its digest)."""

    summary: StateSummary


class InstallNodes(Struct, frozen=True):
    """Check fetched nodes against the target and install them."""

    nodes: StateNodes
    peer: int


class FinishTransfer(Struct, frozen=True):
    """Nothing is left to fetch: compare the roots, and take up the state if they match."""


class ServeState(Struct, frozen=True):
    """Answer a peer's FETCH-STATE from a pinned checkpoint, if it is still there."""

    fetch: FetchState


class ResendReply(Struct, frozen=True):
    """Tell the client again what came of an executed (or expired) bundle (R14)."""

    request: Request
    digest: bytes


class AnswerRead(Struct, frozen=True):
    """Answer a fast read from the state as it is, or refuse it (R20)."""

    read: Read
    refused: bool


class AnswerStatus(Struct, frozen=True):
    """Tell a client how this replica is."""

    query: StatusQuery


class AnswerState(Struct, frozen=True):
    """Show a client nodes of a certified state, if it is still there."""

    query: StateQuery


Answer = ResendReply | AnswerRead | AnswerStatus | AnswerState | ServeState


class Rejection(Struct, frozen=True):
    """Something was dropped: counted by reason."""

    reason: str
    sender: int | bytes | None


class Evidence(Struct, frozen=True):
    """Two signed messages of `culprit` that contradict each other."""

    kind: str
    culprit: int
    first: Envelope
    second: Envelope


class Note(Struct, frozen=True):
    """A line for the log: what happened, and its numbers."""

    event: str
    fields: tuple[tuple[str, int | str], ...] = ()


class Output(Struct, frozen=True):
    """See above."""

    persist: tuple[Write, ...] = ()
    own: tuple[Verified[Body], ...] = ()
    sends: tuple[Send, ...] = ()
    execute: tuple[Execute, ...] = ()
    transfer: tuple[BeginTransfer | InstallNodes | FinishTransfer, ...] = ()
    answers: tuple[Answer, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[Note, ...] = ()
    wake_at: int | None = None
    show_state: int | None = None  # log the tree of this checkpoint's state, to be compared
    halt: str | None = None


class Outbox:
    """Where the parts of the core put what they want while a step runs."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.persist: list[Write] = []
        self.own: list[Verified[Body]] = []
        self.sends: list[Send] = []
        self.execute: list[Execute] = []
        self.transfer: list[BeginTransfer | InstallNodes | FinishTransfer] = []
        self.answers: list[Answer] = []
        self.rejections: list[Rejection] = []
        self.evidence: list[Evidence] = []
        self.notes: list[Note] = []
        self.show_state: int | None = None
        self.halt: str | None = None

    def send(self, to: int | None, packet: Packet) -> None:
        """Send `packet` to one replica, or to all others (None)."""
        self.sends.append(Send(to, packet))

    def reject(self, reason: str, sender: int | bytes | None = None) -> None:
        """Count something dropped."""
        self.rejections.append(Rejection(reason, sender))

    def accuse(self, kind: str, culprit: int, first: Envelope, second: Envelope) -> None:
        """Keep a contradiction."""
        self.evidence.append(Evidence(kind, culprit, first, second))

    def note(self, event: str, **fields: int | str) -> None:
        """Say what happened."""
        self.notes.append(Note(event, tuple(fields.items())))

    def take(self, wake_at: int | None) -> Output:
        """Everything since the last call, as one Output."""
        output = Output(
            persist=tuple(self.persist),
            own=tuple(self.own),
            sends=tuple(self.sends),
            execute=tuple(self.execute),
            transfer=tuple(self.transfer),
            answers=tuple(self.answers),
            rejections=tuple(self.rejections),
            evidence=tuple(self.evidence),
            notes=tuple(self.notes),
            wake_at=wake_at,
            show_state=self.show_state,
            halt=self.halt,
        )
        self._clear()
        return output
