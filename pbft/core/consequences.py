"""A fact of one part becomes a call of another: what follows when something has come to pass."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pbft.core import checkpoints, incarnation, ordering, suspicion, view_change
from pbft.core.certificates import Certified
from pbft.core.context import Instant
from pbft.core.parts import DIVERGED, FORGOTTEN, UNCONFIRMED, Parts
from pbft.messages import Commit, Prepare, Verified

MAX_KEPT_BYTES = 512 * 1024 * 1024
"""Of batches that a replica which is behind has yet to execute."""


class Consequences(Parts):
    """Reacts to facts."""

    def _facts(self, facts: Iterable[Any], now: Instant) -> None:
        for fact in facts:
            self._consequences[type(fact)](self, fact, now)

    def _batch_committed(self, _fact: ordering.BatchCommitted, _now: Instant) -> None:
        self.queue.hand_out(self.views.view)

    def _body_missing(self, fact: ordering.BodyMissing, now: Instant) -> None:
        self.fetching.want_body(fact.seq, fact.digest, fact.holders, now)

    def _proposal_accepted(self, fact: ordering.ProposalAccepted, _now: Instant) -> None:
        self.pool.proposed(fact.content.requests)

    def _clock_slow(self, _fact: ordering.PrimaryClockSlow, now: Instant) -> None:
        self._facts(self.suspicion.suspect(now), now)

    def _stable(self, fact: checkpoints.CheckpointStable, now: Instant) -> None:
        self.log.discard(fact.seq, self._useless(fact.seq))
        self._outbox.note("checkpoint-stable", seq=fact.seq)
        self.ordering.window_moved()
        self._facts(self.ordering.retry_early(now, self._occasion), now)

    def _useless(self, stable: int) -> int:
        """Up to where batches may go: neither this replica nor a peer that is behind needs them.

        One that is behind itself, or fetches a state, needs all that follow; within bounds (R25).
        """
        parameters, target = self._context.parameters, self.transfer.target
        aimless = self.queue.paused and target is None
        useful = target.seq if target and self.queue.paused else self.queue.last_checkpoint
        if aimless or self.log.weight > MAX_KEPT_BYTES:
            useful = max(useful, stable - parameters.window)
        return min(stable, useful) - parameters.checkpoint_interval

    def _diverged(self, fact: checkpoints.StateDiverged, now: Instant) -> None:
        self._outbox.note("state-diverged", seq=fact.certified.seq)
        self._repair(fact.certified, now)

    def _repair(self, certified: Certified, now: Instant) -> None:
        """This replica's own state is wrong: no more votes until it is replaced (R22)."""
        self.gate.silence(DIVERGED)
        self.queue.paused = True
        self.transfer.start(certified, now)

    def _hopeless(self, fact: checkpoints.NoQuorumPossible, _now: Instant) -> None:
        self._outbox.show_state = fact.seq
        self._outbox.halt = (
            f"no digest of the state after {fact.seq} can reach a quorum any more: replicas "
            "disagree about the state; compare what their `state-tree` log lines name with `diff`"
        )

    def _suspected(self, fact: suspicion.PrimarySuspected, now: Instant) -> None:
        self._facts(self.views.suspected(fact.view, fact.reason), now)

    def _leave(self, fact: view_change.Leave, now: Instant) -> None:
        """Who may not vote leaves no view: alone, and without a word, it would only lose touch."""
        if self.gate.silent:
            return
        self._outbox.note("view-change-started", view=fact.view, reason=fact.reason)
        stable = (
            self.checkpoints.stable_seq,
            self.checkpoints.stable_digest,
            self.checkpoints.stable_proof,
        )
        prepared = tuple(s.proof for s in self.log.above(self.log.low) if s.proof)
        self.ordering.leave(fact.view)
        self.fetching.forget_bodies()
        self.suspicion.left(fact.view)
        self.views.leave(fact.view, stable, prepared, len(self.pool) > 0, now)

    def _installed(self, fact: view_change.ViewInstalled, now: Instant) -> None:
        self._outbox.note("view-entered", view=fact.view, max_seq=fact.plan.max_seq)
        self.ordering.leave(fact.view)
        self._facts(self.checkpoints.learn(fact.plan.stable_proof), now)
        self.gate.enter(fact.view)
        self.fetching.forget_bodies()
        facts = self.ordering.enter(fact.view, fact.plan, fact.pre_prepares)
        self.pool.view_changed(self.queue.executed)
        for slot in self.log.above(self.queue.executed):
            if slot.content:
                self.pool.proposed(slot.content.requests)
        self.suspicion.entered(fact.view, self.views.failures, len(self.pool) > 0, now)
        self._relay()
        self._facts(facts, now)
        for vote in self.future.take(fact.view):
            self._count(vote, now)

    def _count(self, vote: Verified[Prepare] | Verified[Commit], now: Instant) -> None:
        """A vote of the current view, or one kept for the view that is entered (R9)."""
        if isinstance(vote.body, Prepare):
            self._facts(self.ordering.on_prepare(vote), now)
        else:
            self._facts(self.ordering.on_commit(vote), now)

    def _released(self, reason: str, now: Instant) -> None:
        """What kept this replica from voting is over: cast the votes that it owes."""
        self.gate.release(reason)
        if self.gate.silent:
            return
        self.checkpoints.vote()
        self._facts(self.ordering.reconsider(), now)
        self._facts(self.views.released(now), now)

    def _memory_confirmed(self, _fact: incarnation.MemoryConfirmed, now: Instant) -> None:
        self._released(UNCONFIRMED, now)

    def _memory_lost(self, _fact: incarnation.MemoryLost, _now: Instant) -> None:
        self.gate.silence(FORGOTTEN)
        self.amnesia.lost_more()
        self._outbox.note("memory-lost", starts=self.incarnations.known(self._context.id))

    def _forgotten(self, fact: incarnation.Forgotten, _now: Instant) -> None:
        if FORGOTTEN in self.gate.reasons:
            self.amnesia.must_pass(fact.seq, fact.view)

    _consequences: ClassVar[dict[type, Callable[..., None]]] = {
        ordering.BatchCommitted: _batch_committed,
        ordering.BodyMissing: _body_missing,
        ordering.ProposalAccepted: _proposal_accepted,
        ordering.PrimaryClockSlow: _clock_slow,
        checkpoints.CheckpointStable: _stable,
        checkpoints.StateDiverged: _diverged,
        checkpoints.NoQuorumPossible: _hopeless,
        suspicion.PrimarySuspected: _suspected,
        view_change.Leave: _leave,
        view_change.ViewInstalled: _installed,
        incarnation.MemoryConfirmed: _memory_confirmed,
        incarnation.MemoryLost: _memory_lost,
        incarnation.Forgotten: _forgotten,
    }
