"""The parts of one replica's core, and how they are put together, at a start and a restart."""

from typing import Any

from msgspec import Struct

from pbft.codec import decode_body
from pbft.core import (
    amnesia,
    checkpoints,
    fetching,
    incarnation,
    ordering,
    recoveries,
    retransmission,
    state_transfer,
    suspicion,
    view_change,
)
from pbft.core.budget import Budgets
from pbft.core.context import Context, Instant
from pbft.core.evidence import EvidenceLocker
from pbft.core.execution import ExecutionQueue
from pbft.core.future import FutureVotes
from pbft.core.log import Log
from pbft.core.output import Outbox
from pbft.core.records import Restored
from pbft.core.repair import Repair
from pbft.core.requests import RequestPool
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.core.timers import Timers
from pbft.core.voting import VotingGate
from pbft.messages import Body, Checkpoint, StateSummary, Verified, ViewChange

RESENDS_PER_SECOND, RESENDS_BURST = 256, 64
"""How often one client may have replies signed again."""

UNCONFIRMED, FORGOTTEN, DIVERGED = "unconfirmed", "forgotten", "diverged"
"""Why the voting gate may be shut: `incarnation`, `amnesia` (R41) and `checkpoints` (R22)."""


class Foundation(Struct, frozen=True):
    """What a start finds on the disk: the log, and which state the application is in."""

    restored: Restored
    executed: int = 0
    complete: bool = True  # False in the middle of a state transfer
    sessions: tuple[SessionView | EvictedMark, ...] = ()
    next_deadline: int | None = None
    summary: StateSummary | None = None  # of a state that was flushed as a checkpoint


class Parts:
    """Everything that a replica's core consists of."""

    def __init__(self, context: Context, foundation: Foundation, now: Instant) -> None:
        parameters = context.parameters
        self._context = context
        self._outbox = outbox = Outbox()
        self._timers = timers = Timers()
        self.log = log = Log(parameters.window, parameters.checkpoint_interval, outbox)
        self.gate = gate = VotingGate(context, log, outbox)
        self.ordering = ordering.Ordering(context, log, gate, outbox)
        self.checkpoints = checkpoints.Checkpoints(context, gate, outbox)
        self.views = view_change.ViewChanges(context, gate, timers, outbox)
        self.suspicion = suspicion.Suspicion(context, timers, outbox)
        repair = Repair(outbox)
        self.retransmission = retransmission.Retransmission(
            context, log, gate, timers, repair, outbox
        )
        self.fetching = fetching.Fetching(context, log, timers, repair, outbox)
        self.transfer = state_transfer.StateTransfer(context, timers, outbox)
        self.incarnations = incarnation.Incarnations(context, timers, outbox)
        self.amnesia = amnesia.Amnesia(context, outbox)
        self.recoveries = recoveries.Recoveries(context)
        self.pool = RequestPool(context)
        self.resends = Budgets[bytes](RESENDS_PER_SECOND, RESENDS_BURST)
        self.queue = ExecutionQueue(context, log, outbox)
        self.future = FutureVotes()
        self._next_deadline = foundation.next_deadline
        self._found_state = foundation.summary
        self._last_record = max(foundation.restored.slots, default=0)
        self._stuck = 0
        self._executed_before = -1
        self.evidence = EvidenceLocker(outbox)
        self.evidence.restore(foundation.restored.evidence)
        self._time = 0
        self._restore(foundation, now)

    # -- coming back (R40)

    def _restore(self, found: Foundation, now: Instant) -> None:
        restored, record = found.restored, found.restored.view
        own = {seq: _own(envelope, Checkpoint) for seq, envelope in restored.checkpoints.items()}
        self.checkpoints.restore(restored.stable, own)
        self.log.low = self.checkpoints.stable_seq
        self.log.restore(restored, record.view, record.active)
        self.gate.restore(own, record.view)
        change = _own(record.view_change, ViewChange) if record.view_change else None
        self.views.restore(record, change, now)
        self.ordering.restore(record.view, record.active, record.max_seq)
        self.queue.jump(found.executed)
        self.queue.paused = not found.complete
        self.pool.sessions.reset(found.sessions)
        self.incarnations.restore(restored.incarnations, lost=restored.amnesia is not None)
        self.gate.silence(UNCONFIRMED)
        self.amnesia.restore(restored.amnesia)
        if restored.amnesia is not None:
            self.gate.silence(FORGOTTEN)

    # -- what several of the layers above need

    def _position(self) -> retransmission.Position:
        return retransmission.Position(
            view=self.views.view,
            active=self.views.active,
            known=self._known,  # what it lacks of the state, its peers cannot send as votes
            stable_seq=self.checkpoints.stable_seq,
            stable_proof=self.checkpoints.stable_proof,
            entered_by=self.views.entered_by,
        )

    @property
    def _promised(self) -> incarnation.Promised:
        """Up to where this replica's disk knows that it may have voted."""
        seq = max(self._last_record, self._reached)
        if goal := self.amnesia.goal:
            view = max(self.views.view, goal.above_view + 1)
            return incarnation.Promised(view, max(seq, goal.above_seq))
        return incarnation.Promised(self.views.view, seq)

    @property
    def _reached(self) -> int:
        """What was executed here at some time, or is known to be executed."""
        vouched = max(self.gate.checkpoints, default=0)
        return max(self.queue.executed, self.checkpoints.stable_seq, vouched)

    @property
    def _occasion(self) -> ordering.Occasion:
        fill_up_to = self.recoveries.accept_up_to(self.checkpoints.stable_seq)
        return ordering.Occasion(self.queue.executed, self._next_deadline, fill_up_to)

    def may_read(self, at_least: int) -> bool:
        """Whether a read here meets what is executed up to `at_least`, or with 0 every acknowledged
        write (R20)."""
        if self.gate.silent or self.queue.paused:
            return False
        # Commits at or below the stable checkpoint may be forgotten by now: it stands for them.
        promised = max(self.gate.highest_commit, self.checkpoints.stable_seq)
        return self.queue.executed >= (at_least or max(promised, self.views.max_seq))

    @property
    def _known(self) -> int:
        """Up to where this replica has the state, or a target of it, and all batches after that."""
        target = self.transfer.target
        held = self.queue.held_after(target.seq) if target else 0
        return max(held, self.queue.executed)

    def _catch_up(self) -> None:
        known = self._known
        ahead = [
            (peer, status.known)
            for peer in self._context.peers
            if (status := self.retransmission.status_of(peer)) and status.known > known
        ]
        if ahead:
            self.fetching.catch_up(known, ahead)

    def _relay(self) -> None:
        """Tell the primary of what still waits: it may be new, or had no room before (R14, R19)."""
        if self.ordering.active and not self.ordering.leading:
            for envelope in self.pool.to_relay():
                self._outbox.send(self.ordering.primary, envelope)


def _own(envelope: Any, kind: type[Body]) -> Any:
    body = decode_body(envelope.body)
    assert isinstance(body, kind)
    return Verified(body=body, envelope=envelope)
