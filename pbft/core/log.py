"""The slots between the watermarks, one per sequence number (O4.2, O4.3)."""

from pbft.codec import decode_body
from pbft.core.batches import NULL_CONTENT, BatchContent
from pbft.core.output import Outbox
from pbft.core.quorum import VoteSet
from pbft.core.records import (
    Restored,
    SlotRecord,
    batch_delete,
    batch_write,
    slot_delete,
    slot_write,
)
from pbft.messages import (
    Commit,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proof,
    Verified,
)

SLOT_WEIGHT = 8192  # of votes and certificates


class Slot:
    """What is known about one sequence number.

    `pre_prepare`, `prepares`, `commits` and `prepared` belong to the current view; the rest
    outlives views.
    """

    __slots__ = (
        "certificate",
        "commits",
        "contents",
        "own_commit",
        "own_prepare",
        "pre_prepare",
        "prepared",
        "prepares",
        "proof",
        "seq",
    )

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.contents: dict[bytes, BatchContent] = {NULL_CONTENT.digest: NULL_CONTENT}
        self.proof: PreparedProof | None = None
        self.certificate: Proof = ()
        self.own_prepare: Verified[Prepare] | None = None
        self.own_commit: Verified[Commit] | None = None
        self.forget_view()

    def forget_view(self) -> None:
        """Start over with ordering, as after a view change (R38)."""
        self.pre_prepare: Verified[PrePrepare] | None = None
        self.prepares: VoteSet[Prepare] = VoteSet()
        self.commits: VoteSet[Commit] = VoteSet()
        self.prepared = False

    @property
    def digest(self) -> bytes | None:
        """The digest that the current view's primary has proposed."""
        return self.pre_prepare.body.digest if self.pre_prepare else None

    @property
    def content(self) -> BatchContent | None:
        """The batch that the current view's primary has proposed, if it is here."""
        return self.contents.get(self.pre_prepare.body.digest) if self.pre_prepare else None

    @property
    def committed(self) -> BatchContent | None:
        """The batch that a quorum has committed, if it is here (R5)."""
        return self.contents.get(self.committed_digest) if self.certificate else None

    @property
    def committed_digest(self) -> bytes:
        """The digest in the commit certificate; only where there is one."""
        body = decode_body(self.certificate[0].body)
        assert isinstance(body, Commit)
        return body.digest

    def record(self) -> SlotRecord:
        """What must survive a restart."""
        return SlotRecord(
            pre_prepare=self.pre_prepare.envelope if self.pre_prepare else None,
            prepare=self.own_prepare.envelope if self.own_prepare else None,
            commit=self.own_commit.envelope if self.own_commit else None,
            proof=self.proof,
            certificate=self.certificate,
        )


class Log:
    """Slots above the low watermark, and below it those that peers may still ask for."""

    def __init__(self, window: int, interval: int, outbox: Outbox) -> None:
        self.low = 0
        self.floor = 0  # what was at or below it is gone
        self._bytes = 0
        self._window = window
        self._interval = interval
        self._outbox = outbox
        self._slots: dict[int, Slot] = {}

    @property
    def high(self) -> int:
        """The high watermark H = h + L."""
        return self.low + self._window

    @property
    def weight(self) -> int:
        """About how many bytes of memory all of it takes."""
        return self._bytes + SLOT_WEIGHT * len(self._slots)

    def in_window(self, seq: int) -> bool:
        """h < seq <= H: where votes are cast (R1)."""
        return self.low < seq <= self.high

    def keeps(self, seq: int) -> bool:
        """Where votes are kept: one checkpoint interval above H as well (R10)."""
        return self.low < seq <= self.high + self._interval

    def get(self, seq: int) -> Slot | None:
        """The slot, if there is one."""
        return self._slots.get(seq)

    def slot(self, seq: int) -> Slot:
        """The slot, made where there was none. The caller has checked that `seq` is kept."""
        slot = self._slots.get(seq)
        if slot is None:
            slot = self._slots[seq] = Slot(seq)
        return slot

    def above(self, seq: int) -> list[Slot]:
        """All slots above `seq`, in order."""
        return [self._slots[number] for number in sorted(self._slots) if number > seq]

    def save(self, slot: Slot) -> None:
        """Make the slot durable as it is now."""
        self._outbox.persist.append(slot_write(slot.seq, slot.record()))

    def add_content(self, slot: Slot, content: BatchContent) -> None:
        """Keep a batch's bodies, durably (R3)."""
        if content.digest not in slot.contents:
            slot.contents[content.digest] = content
            self._bytes += content.weight
            self._outbox.persist.append(batch_write(slot.seq, content))

    def enter_view(self) -> None:
        """Forget the votes of the view that was left."""
        for slot in self._slots.values():
            slot.forget_view()

    def discard(self, low: int, keep_above: int) -> None:
        """Raise the low watermark; drop the slots at or below `keep_above` (R21)."""
        self.low = max(self.low, low)
        self.floor = max(self.floor, keep_above)
        for seq in sorted(seq for seq in self._slots if seq <= keep_above):
            slot = self._slots.pop(seq)
            self._bytes -= sum(content.weight for content in slot.contents.values())
            self._outbox.persist.append(slot_delete(seq))
            self._outbox.persist.extend(
                batch_delete(seq, digest)
                for digest in slot.contents
                if digest != NULL_CONTENT.digest
            )

    def restore(self, restored: Restored, view: int, active: bool) -> None:
        """Fill in what was found on disk; votes of `view` count again, they are durable."""
        for seq, record in sorted(restored.slots.items()):
            slot = self.slot(seq)
            slot.contents.update((c.digest, c) for c in restored.batches.get(seq, ()))
            self._bytes += sum(content.weight for content in slot.contents.values())
            slot.proof, slot.certificate = record.proof, record.certificate
            _restore_votes(slot, record, view if active else -1)


def _restore_votes(slot: Slot, record: SlotRecord, view: int) -> None:
    if record.pre_prepare:
        body = decode_body(record.pre_prepare.body)
        assert isinstance(body, PrePrepare)
        if body.view == view:
            slot.pre_prepare = Verified(body=body, envelope=record.pre_prepare)
    if record.prepare:
        prepare = decode_body(record.prepare.body)
        assert isinstance(prepare, Prepare)
        slot.own_prepare = Verified(body=prepare, envelope=record.prepare)
        if prepare.view == view:
            slot.prepares.add(prepare.replica, prepare.digest, slot.own_prepare)
    if record.commit:
        commit = decode_body(record.commit.body)
        assert isinstance(commit, Commit)
        slot.own_commit = Verified(body=commit, envelope=record.commit)
        if commit.view == view:
            slot.prepared = True
            slot.commits.add(commit.replica, commit.digest, slot.own_commit)
