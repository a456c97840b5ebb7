"""Heartbeats, and what a peer's heartbeat shows that it lacks (O4.6, R25, R37).

A STATUS that says the same twice in a row comes from a peer that is stuck: only then are votes,
proposals, checkpoints or the NEW-VIEW sent to it again, and only this replica's own votes.
"""

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.core.log import Log, Slot
from pbft.core.output import Outbox
from pbft.core.repair import Repair
from pbft.core.timers import Timers
from pbft.core.voting import VotingGate
from pbft.messages import (
    MAX_SLOT_REPORTS,
    CheckpointProof,
    Envelope,
    Proof,
    Proposal,
    SlotReport,
    Status,
    Verified,
)

HEARTBEAT = "heartbeat"
SLOTS_PER_ANSWER = 16


class Position(Struct, frozen=True):
    """Where this replica stands."""

    view: int
    active: bool
    known: int
    stable_seq: int
    stable_proof: Proof
    entered_by: Envelope | None


class Retransmission:
    """Sends heartbeats; answers those of peers that are stuck."""

    def __init__(
        self,
        context: Context,
        log: Log,
        gate: VotingGate,
        timers: Timers,
        repair: Repair,
        outbox: Outbox,
    ) -> None:
        self._context = context
        self._log = log
        self._gate = gate
        self._timers = timers
        self._repair = repair
        self._outbox = outbox
        self._every = microseconds(context.parameters.heartbeat_interval_ms)
        self._seen: dict[int, Status] = {}
        self._answered: dict[int, int] = {}

    def heartbeat(self, position: Position, now: Instant) -> None:
        """Tell everybody where this replica stands."""
        body = Status(
            self._context.id,
            position.view,
            position.active,
            position.known,
            position.stable_seq,
            self._reports(position.known) if position.active else (),
        )
        self._outbox.send(None, self._context.sign(body).envelope)
        self._timers.set(HEARTBEAT, now.mono + self._every)

    def _reports(self, known: int) -> tuple[SlotReport, ...]:
        return tuple(
            SlotReport(slot.seq, slot.content is not None, slot.prepared)
            for slot in self._log.above(known)[:MAX_SLOT_REPORTS]
        )

    def status_of(self, replica: int) -> Status | None:
        """The last heartbeat of `replica`."""
        return self._seen.get(replica)

    def on_status(self, message: Verified[Status], position: Position, now: Instant) -> None:
        """Send again what a stuck peer lacks; the same question earns one answer per interval."""
        body = message.body
        before = self._seen.get(body.replica)
        self._seen[body.replica] = body
        stuck = before is not None and _standing(before) == _standing(body)
        if not stuck or now.mono < self._answered.get(body.replica, 0):
            return
        self._answered[body.replica] = now.mono + self._every // 2
        if body.view < position.view or (body.view == position.view and not body.active):
            if position.entered_by is not None:
                self._repair.send(body.replica, position.entered_by, now)
        elif body.view == position.view and position.active:
            self._repeat_votes(body, now)
        self._repeat_checkpoints(body, position, now)

    def _repeat_votes(self, body: Status, now: Instant) -> None:
        reports = {report.seq: report for report in body.slots}
        for slot in self._log.above(body.known)[:SLOTS_PER_ANSWER]:
            report = reports.get(slot.seq, SlotReport(slot.seq, False, False))
            self._repeat(slot, report, body, now)

    def _repeat(self, slot: Slot, report: SlotReport, body: Status, now: Instant) -> None:
        proposal, content = slot.pre_prepare, slot.content
        mine = proposal is not None and proposal.body.replica == self._context.id
        if mine and proposal and content and not report.pre_prepared:
            self._repair.send(body.replica, Proposal(proposal.envelope, content.batch), now)
        prepare, commit = slot.own_prepare, slot.own_commit
        if prepare and prepare.body.view == body.view and not report.prepared:
            self._outbox.send(body.replica, prepare.envelope)
        if commit and commit.body.view == body.view:
            self._outbox.send(body.replica, commit.envelope)

    def _repeat_checkpoints(self, body: Status, position: Position, now: Instant) -> None:
        if body.stable_seq < position.stable_seq:
            self._repair.send(body.replica, CheckpointProof(position.stable_proof), now)
        for seq in sorted(self._gate.checkpoints)[-2:]:
            if seq > body.stable_seq:
                self._outbox.send(body.replica, self._gate.checkpoints[seq].envelope)


def _standing(status: Status) -> tuple[int, bool, int, int]:
    return status.view, status.active, status.known, status.stable_seq
