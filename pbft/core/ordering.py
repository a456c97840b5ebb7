"""The normal case: PRE-PREPARE, PREPARE, COMMIT (O4.2)."""

from msgspec import Struct

from pbft.core.batches import BatchContent
from pbft.core.context import Context, Instant, microseconds
from pbft.core.events import ProposalReceived
from pbft.core.log import Log, Slot
from pbft.core.new_view import Plan
from pbft.core.output import Outbox
from pbft.core.voting import VotingGate
from pbft.messages import (
    Commit,
    Envelope,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proposal,
    Verified,
)


class BatchCommitted(Struct, frozen=True):
    """A quorum has committed a batch for `seq`, and its bodies are here (R5)."""

    seq: int


class BodyMissing(Struct, frozen=True):
    """The new view proposes a batch again whose bodies are not here (R34)."""

    seq: int
    digest: bytes
    holders: tuple[int, ...]


class ProposalAccepted(Struct, frozen=True):
    """The primary's assignment was accepted."""

    content: BatchContent


class PrimaryClockSlow(Struct, frozen=True):
    """The primary's proposed time lags behind: suspicion, never rejection (R12)."""


class Occasion(Struct, frozen=True):
    """When an empty batch is in order: the state's next deadline has come, as is known after all
    that is `executed` (R12), or a replica needs batches up to `fill_up_to` to recover (R41).
    """

    executed: int
    next_deadline: int | None
    fill_up_to: int

    def tick_due(self, seq: int, time: int) -> bool:
        """Whether `seq`, at `time` (µs), may be the tick for that deadline."""
        due = self.next_deadline is not None and self.next_deadline <= time
        return due and seq <= self.executed + 1


Fact = BatchCommitted | BodyMissing | ProposalAccepted | PrimaryClockSlow


class Ordering:
    """Votes on slots of the current view."""

    def __init__(self, context: Context, log: Log, gate: VotingGate, outbox: Outbox) -> None:
        self._context = context
        self._quorum = context.quorum
        self._log = log
        self._gate = gate
        self._outbox = outbox
        self.view = 0
        self.active = True
        self.next_seq = 1  # of the next proposal, where this replica is the primary
        self._tolerance = microseconds(context.parameters.clock_tolerance_ms)
        self._early: dict[int, ProposalReceived] = {}

    @property
    def primary(self) -> int:
        """The primary of the current view."""
        return self._quorum.primary(self.view)

    @property
    def leading(self) -> bool:
        """Whether this replica is the primary of a view that it has entered."""
        return self.active and self.primary == self._context.id

    # -- the primary's side

    def propose(self, content: BatchContent) -> None:
        """Assign the next sequence number to `content`; the caller has checked the window (R10)."""
        slot = self._log.slot(self.next_seq)
        self._log.add_content(slot, content)
        vote = self._gate.pre_prepare(slot, self.view, content.digest)
        self.next_seq += 1
        self._outbox.send(None, Proposal(vote.envelope, content.batch))

    # -- the backups' side

    def on_proposal(self, event: ProposalReceived, now: Instant, occasion: Occasion) -> list[Fact]:
        """Accept the primary's assignment, or refuse it (R1, R2, R12)."""
        body = event.pre_prepare.body
        if not self._acceptable(event):
            return []
        known_by_then = max(occasion.executed + 1, occasion.fill_up_to)
        if not event.content.requests and body.seq > known_by_then:
            return self._defer(event)  # whether a tick is due is known after its predecessor
        if reason := self._untimely(event, now, occasion):
            self._outbox.reject(reason, body.replica)
            return []
        slot = self._log.slot(body.seq)
        slot.pre_prepare = event.pre_prepare
        self._log.add_content(slot, event.content)
        self._log.save(slot)
        self._gate.prepare(slot, body.view, body.digest)
        late = event.content.batch.time < now.wall - self._tolerance
        facts: list[Fact] = [ProposalAccepted(event.content)]
        facts += [PrimaryClockSlow()] if late else []
        return facts + self._advance(slot)

    def _acceptable(self, event: ProposalReceived) -> bool:
        body = event.pre_prepare.body
        if not self.active or body.view != self.view or body.replica != self.primary:
            self._outbox.reject("pre-prepare-of-another-view", body.replica)
            return False
        if body.digest != event.content.digest:
            self._outbox.reject("batch-digest-mismatch", body.replica)
            return False
        if not self._log.in_window(body.seq):
            if self._log.keeps(body.seq):
                self._early.setdefault(body.seq, event)
            self._outbox.reject("pre-prepare-out-of-window", body.replica)
            return False
        return not self._contradicts(event.pre_prepare)

    def _contradicts(self, proposal: Verified[PrePrepare]) -> bool:
        slot = self._log.get(proposal.body.seq)
        if slot is None or slot.pre_prepare is None:
            return False
        known = slot.pre_prepare
        if known.body.digest != proposal.body.digest:
            self._outbox.accuse(
                "equivocation", proposal.body.replica, known.envelope, proposal.envelope
            )
            self._outbox.reject("second-pre-prepare", proposal.body.replica)
        return True

    def _defer(self, event: ProposalReceived) -> list[Fact]:
        self._early.setdefault(event.pre_prepare.body.seq, event)
        return []

    def _untimely(self, event: ProposalReceived, now: Instant, occasion: Occasion) -> str | None:
        batch, seq = event.content.batch, event.pre_prepare.body.seq
        if batch.time > now.wall + self._tolerance:
            return "proposed-time-ahead"
        if batch.requests or self._committed(event):
            return None
        if seq <= occasion.fill_up_to or occasion.tick_due(seq, batch.time):
            return None
        return "empty-batch"

    def _committed(self, event: ProposalReceived) -> bool:
        slot = self._log.get(event.pre_prepare.body.seq)
        if slot is None or not slot.certificate:
            return False
        return slot.committed_digest == event.content.digest

    def retry_early(self, now: Instant, occasion: Occasion) -> list[Fact]:
        """Look again at proposals that came before their time (R10, R12)."""
        facts: list[Fact] = []
        for seq in sorted(self._early):
            if seq <= self._log.low:
                del self._early[seq]
            elif self._log.in_window(seq):
                event = self._early.pop(seq)
                facts += self.on_proposal(event, now, occasion)
        return facts

    def on_prepare(self, vote: Verified[Prepare]) -> list[Fact]:
        """Count a PREPARE; the primary's does not count (R4)."""
        body = vote.body
        if body.view != self.view or not self.active or not self._log.keeps(body.seq):
            return []
        if body.replica == self.primary:
            self._outbox.reject("prepare-of-the-primary", body.replica)
            return []
        slot = self._log.slot(body.seq)
        if earlier := slot.prepares.add(body.replica, body.digest, vote):
            self._accuse_voter("double-prepare", body.replica, earlier.envelope, vote.envelope)
        return self._advance(slot)

    def on_commit(self, vote: Verified[Commit]) -> list[Fact]:
        """Count a COMMIT."""
        body = vote.body
        if body.view != self.view or not self.active or not self._log.keeps(body.seq):
            return []
        slot = self._log.slot(body.seq)
        if earlier := slot.commits.add(body.replica, body.digest, vote):
            self._accuse_voter("double-commit", body.replica, earlier.envelope, vote.envelope)
        return self._advance(slot)

    def _accuse_voter(self, kind: str, culprit: int, first: Envelope, second: Envelope) -> None:
        self._outbox.accuse(kind, culprit, first, second)
        self._outbox.reject("contradicting-vote", culprit)

    def on_body(self, seq: int, content: BatchContent) -> list[Fact]:
        """A missing batch has been fetched and verified: now it may be voted on (R34)."""
        slot = self._log.get(seq)
        if slot is None or content.digest in slot.contents:
            return []
        self._log.add_content(slot, content)
        self._vote_again(slot)
        return self._advance(slot)

    # -- phases

    def _advance(self, slot: Slot) -> list[Fact]:
        proposal = slot.pre_prepare
        if proposal is None or slot.content is None or not self._log.in_window(slot.seq):
            return []
        digest = proposal.body.digest
        if not slot.prepared and slot.prepares.count(digest) >= self._quorum.q - 1:
            self._prepared(slot, proposal)
        if slot.certificate or not slot.prepared:
            return []
        if slot.commits.count(digest) < self._quorum.q:
            return []
        slot.certificate = tuple(
            vote.envelope for vote in slot.commits.matching(digest)[: self._quorum.q]
        )
        self._log.save(slot)
        return [BatchCommitted(slot.seq)]

    def _prepared(self, slot: Slot, proposal: Verified[PrePrepare]) -> None:
        votes = slot.prepares.matching(proposal.body.digest)[: self._quorum.q - 1]
        slot.prepared = True
        slot.proof = PreparedProof(proposal.envelope, tuple(vote.envelope for vote in votes))
        self._log.save(slot)
        self._gate.commit(slot, self.view, proposal.body.digest)

    # -- views

    def leave(self, view: int) -> None:
        """Between VIEW-CHANGE and NEW-VIEW nothing is ordered (R27)."""
        self.view = view
        self.active = False
        self._early.clear()
        self._log.enter_view()

    def enter(self, view: int, plan: Plan, pre_prepares: tuple[Envelope, ...]) -> list[Fact]:
        """Vote on what the new view proposes again; nothing is executed again (R32, R38)."""
        self.leave(view)
        self.active = True
        self.next_seq = max(plan.max_seq, self._log.low) + 1
        facts: list[Fact] = []
        for proposal, envelope in zip(plan.proposals, pre_prepares, strict=True):
            if not self._log.in_window(proposal.seq):
                continue
            slot = self._log.slot(proposal.seq)
            body = PrePrepare(self.primary, view, proposal.seq, proposal.digest)
            slot.pre_prepare = Verified(body=body, envelope=envelope)
            if slot.content is None:
                facts.append(BodyMissing(proposal.seq, proposal.digest, proposal.holders))
            self._vote_again(slot)
            self._log.save(slot)
        return facts

    def window_moved(self) -> None:
        """The low watermark has passed what a lagging primary would propose next."""
        self.next_seq = max(self.next_seq, self._log.low + 1)

    def restore(self, view: int, active: bool, max_seq: int) -> None:
        """Take up the view that was found on disk."""
        self.view, self.active = view, active
        proposed = (slot.seq for slot in self._log.above(self._log.low) if slot.pre_prepare)
        self.next_seq = max([max_seq, self._log.low, *proposed]) + 1

    def _vote_again(self, slot: Slot) -> None:
        """Agree to what the view proposes, if the bodies are here (R3)."""
        if slot.pre_prepare and slot.content and not self.leading:
            self._gate.prepare(slot, self.view, slot.pre_prepare.body.digest)

    def reconsider(self) -> list[Fact]:
        """Vote on everything that was accepted while this replica had to be silent, and count."""
        facts: list[Fact] = []
        for slot in self._log.above(self._log.low) if self.active else ():
            if slot.pre_prepare and slot.content and self._log.in_window(slot.seq):
                self._vote_again(slot)
                if slot.prepared:
                    self._gate.commit(slot, self.view, slot.pre_prepare.body.digest)
                facts += self._advance(slot)
        return facts
