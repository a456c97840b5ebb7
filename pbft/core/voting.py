"""The one gate through which every vote of this replica passes: check the rule, record, sign.

It holds what the replica has promised: in which view it last voted for what (R2), which views it
has left (R27), whether it may vote at all (R22, R41). A vote that would break a promise is a bug
of ours and stops the replica; a vote that it has cast already is not cast again.
"""

from collections.abc import Sequence

from pbft.core.context import Context
from pbft.core.log import Log, Slot
from pbft.core.output import Outbox
from pbft.core.records import checkpoint_write
from pbft.messages import (
    Body,
    Checkpoint,
    Commit,
    Envelope,
    NewView,
    Prepare,
    PrePrepare,
    Proof,
    Verified,
    ViewChange,
)


class BrokenPromise(AssertionError):
    """This replica was about to contradict itself."""


class VotingGate:
    """Casts votes; knows what was cast."""

    def __init__(self, context: Context, log: Log, outbox: Outbox) -> None:
        self._context = context
        self._log = log
        self._outbox = outbox
        self.reasons: dict[str, None] = {}  # why it is silent
        self.floor = 0  # no vote in a lower view
        self.highest_commit = 0
        self.checkpoints: dict[int, Verified[Checkpoint]] = {}

    @property
    def silent(self) -> bool:
        """Whether this replica must not vote now."""
        return bool(self.reasons)

    def silence(self, reason: str) -> None:
        """Stop voting for `reason`."""
        self.reasons[reason] = None

    def release(self, reason: str) -> None:
        """Let `reason` no longer keep this replica from voting."""
        self.reasons.pop(reason, None)

    def pre_prepare(self, slot: Slot, view: int, digest: bytes) -> Verified[PrePrepare]:
        """Propose as the primary; the caller sends it together with the batch."""
        if self.silent:
            raise BrokenPromise("a proposal although it must not vote")
        self._check(slot, view, digest, slot.pre_prepare)
        vote = self._context.sign(PrePrepare(self._context.id, view, slot.seq, digest))
        slot.pre_prepare = vote
        self._log.save(slot)
        return vote

    def prepare(self, slot: Slot, view: int, digest: bytes) -> None:
        """Agree with the primary (its batch is in the same transaction, R3)."""
        self._check(slot, view, digest, slot.own_prepare)
        if self.silent or _cast_in(view, slot.own_prepare):
            return
        slot.own_prepare = self._context.sign(Prepare(self._context.id, view, slot.seq, digest))
        self._log.save(slot)
        self._cast(slot.own_prepare)

    def commit(self, slot: Slot, view: int, digest: bytes) -> None:
        """Say that the slot is prepared here (its certificate is in the same record, R39)."""
        self._check(slot, view, digest, slot.own_commit)
        if self.silent or _cast_in(view, slot.own_commit):
            return
        slot.own_commit = self._context.sign(Commit(self._context.id, view, slot.seq, digest))
        self.highest_commit = max(self.highest_commit, slot.seq)
        self._log.save(slot)
        self._cast(slot.own_commit)

    def checkpoint(self, seq: int, digest: bytes) -> None:
        """Vouch for the state after `seq`; never for a second one (R46)."""
        if self.silent or seq in self.checkpoints:
            return
        vote = self._context.sign(Checkpoint(self._context.id, seq, digest))
        self.checkpoints[seq] = vote
        self._outbox.persist.append(checkpoint_write(seq, vote.envelope))
        self._cast(vote)

    def view_change(self, body: ViewChange) -> Verified[ViewChange]:
        """Leave for a higher view, and promise never to vote in a lower one again (R27)."""
        if self.silent or body.view < self.floor:
            raise BrokenPromise(f"a view-change for {body.view} after one for {self.floor}")
        self.floor = body.view
        vote = self._context.sign(body)
        self._cast(vote)
        return vote

    def new_view(
        self, view: int, changes: Proof, proposals: Sequence[tuple[int, bytes]]
    ) -> tuple[NewView, Envelope]:
        """Open `view` as its primary, which proposes (seq, digest) in it."""
        if self.silent or view < self.floor:
            raise BrokenPromise(f"a new-view for {view} although it must not vote in it")
        sign, me = self._context.sign, self._context.id
        proofs = tuple(sign(PrePrepare(me, view, *proposal)).envelope for proposal in proposals)
        opening = sign(NewView(me, view, changes, proofs))
        self._outbox.send(None, opening.envelope)
        return opening.body, opening.envelope

    def enter(self, view: int) -> None:
        """Never vote below a view that was entered."""
        self.floor = max(self.floor, view)

    def forget_checkpoints(self, below: int) -> None:
        """Drop own checkpoint votes for sequence numbers below `below`."""
        for seq in [seq for seq in self.checkpoints if seq < below]:
            del self.checkpoints[seq]
            self._outbox.persist.append(checkpoint_write(seq, None))

    def restore(self, checkpoints: dict[int, Verified[Checkpoint]], floor: int) -> None:
        """Take up the promises that were found on disk."""
        self.checkpoints = checkpoints
        self.floor = floor
        commits = (slot.seq for slot in self._log.above(0) if slot.own_commit)
        self.highest_commit = max(commits, default=0)

    def _check(
        self,
        slot: Slot,
        view: int,
        digest: bytes,
        last: Verified[PrePrepare] | Verified[Prepare] | Verified[Commit] | None,
    ) -> None:
        if view < self.floor:
            raise BrokenPromise(f"a vote in view {view} after leaving for {self.floor}")
        if last and last.body.view > view:
            raise BrokenPromise(f"a vote in view {view} after one in {last.body.view}")
        if last and last.body.view == view and last.body.digest != digest:
            raise BrokenPromise(f"two digests for view {view}, seq {slot.seq}")

    def _cast(self, vote: Verified[Body]) -> None:
        self._outbox.own.append(vote)
        self._outbox.send(None, vote.envelope)


def _cast_in(view: int, last: Verified[Prepare] | Verified[Commit] | None) -> bool:
    return last is not None and last.body.view == view
