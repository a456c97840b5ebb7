"""One replica's protocol: events in, one `Output` out.

`Parts` lists what there is, `Consequences` turns one part's facts into another's calls, `Inbox`
takes messages, and `Replica` takes events. Nothing here does I/O, reads a clock, draws randomness
or awaits (see `events` and `output` for the two vocabularies).
"""

from collections.abc import Callable
from typing import Any, ClassVar

from pbft.codec import batch_digest, checkpoint_digest
from pbft.core import (
    events,
    fetching,
    incarnation,
    ordering,
    retransmission,
    state_transfer,
    suspicion,
    view_change,
)
from pbft.core.batches import BatchContent
from pbft.core.certificates import check_commits
from pbft.core.context import Instant
from pbft.core.inbox import Inbox
from pbft.core.output import Output
from pbft.core.parts import DIVERGED, FORGOTTEN, Foundation
from pbft.core.requests import Waiting
from pbft.messages import Batch, Recovery, Request

STUCK_HEARTBEATS = 3


class Replica(Inbox):
    """See above. Not thread-safe: one step after the other."""

    def step(self, event: events.Event, now: Instant) -> Output:
        """Take one event; say what is to be done."""
        self._handlers[type(event)](self, event, now)
        if self._outbox.evidence:
            self.evidence.keep()
        return self._outbox.take(self._timers.next)

    def _started(self, event: events.Started, now: Instant) -> None:
        self.incarnations.start(event.nonce, self._promised, now)
        if found := self._found_state:
            self._facts(self.checkpoints.own_state(found, checkpoint_digest(found)), now)
        self._beat(now)
        if self.ordering.active:
            self.suspicion.entered(self.views.view, 0, False, now)
        else:
            self.suspicion.left(self.views.view)
        for slot in self.log.above(self.log.low):
            if slot.digest is not None and slot.content is None:
                self.fetching.want_body(slot.seq, slot.digest, (), now)
        self.queue.hand_out(self.views.view)

    def _tick(self, _event: events.Tick, now: Instant) -> None:
        for name in self._timers.due(now.mono):
            self._timer(name, now)

    def _timer(self, name: str, now: Instant) -> None:
        match name:
            case retransmission.HEARTBEAT:
                self._beat(now)
                self._look_behind(now)
            case suspicion.REQUEST if self._behind:
                self.suspicion.request_waits(now)  # it may have been executed long ago
            case suspicion.REQUEST | suspicion.SILENCE:
                self._facts(self.suspicion.on_timer(name, now), now)
            case view_change.NEW_VIEW | view_change.RESEND:
                self._facts(self.views.on_timer(name, now), now)
            case fetching.BODIES:
                self.fetching.on_bodies_timer(self.log.low, now)
            case state_transfer.TRANSFER:
                self.transfer.on_timer(now)
            case incarnation.ANNOUNCE:
                self.incarnations.announce(now)

    def _turn_ended(self, _event: events.TurnEnded, now: Instant) -> None:
        """A primary proposes whenever a slot of the pipeline is free (no timer, no delay)."""
        self._try_to_recover(now)
        self._pass_on_recoveries()
        depth = self._context.parameters.pipeline_depth
        while self.ordering.leading and not self.gate.silent:
            seq = self.ordering.next_seq
            if not self.log.in_window(seq) or seq - self.queue.handed > depth:
                return
            waiting = self.pool.next_batch()
            if not waiting and not self._empty_due(seq, now):
                return
            self.ordering.propose(self._content(waiting, now))

    def _empty_due(self, seq: int, now: Instant) -> bool:
        """A deadline of the state has come (R12), or a replica that recovers needs it (R41)."""
        fill_up_to = self.recoveries.fill_up_to(self.checkpoints.stable_seq)
        return seq <= fill_up_to or self._occasion.tick_due(seq, now.wall)

    def _pass_on_recoveries(self) -> None:
        """First of all the backups must know why there will be empty batches (R41)."""
        if self.ordering.leading and not self.gate.silent:
            stable, view = self.checkpoints.stable_seq, self.views.view
            for envelope in self.recoveries.to_pass_on(stable, view):
                self._outbox.send(None, envelope)

    def _try_to_recover(self, now: Instant) -> None:
        """Does anything that was forgotten still matter? (R41)"""
        settled = 0 if self.queue.paused else min(self.checkpoints.stable_seq, self.queue.executed)
        view = self.views.view if self.views.active else 0
        if self.incarnations.confirmed and self.amnesia.over(settled, view):
            self.amnesia.end()
            self.incarnations.recovered()
            self._outbox.note("memory-no-longer-needed", seq=settled, view=view)
            self._released(FORGOTTEN, now)

    def _content(self, waiting: list[Waiting], now: Instant) -> BatchContent:
        self._time = max(self._time, now.wall)
        digests = tuple(w.digest for w in waiting)
        return BatchContent(
            batch_digest(self._time, digests),
            Batch(self._time, tuple(w.envelope for w in waiting)),
            tuple(w.request for w in waiting),
            digests,
        )

    # -- messages and bundles of messages

    def _received(self, event: events.Received, now: Instant) -> None:
        body, peer = event.message.body, event.peer
        own = getattr(body, "replica", None) == peer
        if isinstance(peer, int) and own:
            self.suspicion.heard(peer, now)
        if isinstance(body, Request):
            self._request(event.message, peer, now)  # type: ignore[arg-type]
        elif isinstance(body, Recovery) and not own:
            self._passed_on(event.message, peer, now)  # type: ignore[arg-type]
        else:
            self._deliver(event.message, now)

    def _own_durable(self, event: events.OwnDurable, now: Instant) -> None:
        self._deliver(event.message, now)

    def _proposal(self, event: events.ProposalReceived, now: Instant) -> None:
        self.suspicion.heard(event.pre_prepare.body.replica, now)
        body = event.pre_prepare.body
        self.incarnations.heard(body.replica, body.view, body.seq)
        self._facts(self.ordering.on_proposal(event, now, self._occasion), now)

    def _batch(self, event: events.BatchReceived, now: Instant) -> None:
        if self.fetching.wants(event.seq, event.content.digest):
            self.fetching.have_body(event.seq)
            self._facts(self.ordering.on_body(event.seq, event.content), now)

    def _committed_batch(self, event: events.CommittedBatchReceived, now: Instant) -> None:
        """A batch from a peer's log: a quorum has committed it, whatever the view (R23)."""
        proof = tuple(vote.envelope for vote in event.commits)
        commit = check_commits(self._context.quorum, proof)
        if commit.digest != event.content.digest:
            self._outbox.reject("batch-digest-mismatch", event.peer)
            return
        if not self.queue.handed < commit.seq <= self.log.high + self._reach:
            self._outbox.reject("batch-not-needed", event.peer)
            return
        slot = self.log.slot(commit.seq)
        self.log.add_content(slot, event.content)
        if not slot.certificate:
            slot.certificate = proof
            self.log.save(slot)
        self._facts([ordering.BatchCommitted(commit.seq)], now)
        if self.transfer.target and self.fetching.asked_up_to(self._known):
            self._catch_up()

    @property
    def _reach(self) -> int:
        return self._context.parameters.checkpoint_interval

    def _checkpoint_proof(self, event: events.CheckpointProofReceived, now: Instant) -> None:
        for vote in event.checkpoints:
            self._facts(self.checkpoints.on_vote(vote), now)

    # -- what the shell has done

    def _executed(self, event: events.Executed, now: Instant) -> None:
        self.queue.executed = event.seq
        self.queue.hand_out(self.views.view)
        self._next_deadline = event.next_deadline
        self.pool.sessions.update(event.sessions)
        slot = self.log.get(event.seq)
        if slot and slot.committed:
            self.pool.executed(slot.committed.requests)
        self.pool.drop_settled(event.sessions)
        self.views.progress()
        self.suspicion.executed(len(self.pool) > 0, now)
        facts: list[Any] = []
        if event.summary is not None:
            digest = checkpoint_digest(event.summary)
            facts += self.checkpoints.own_state(event.summary, digest)
        if self.pool.starved(event.seq):
            facts += self.suspicion.suspect(now)
        facts += self.ordering.retry_early(now, self._occasion)
        self._facts(facts, now)
        if self.fetching.asked_up_to(event.seq):
            self._catch_up()

    def _nodes_installed(self, event: events.NodesInstalled, now: Instant) -> None:
        self.transfer.on_installed(
            event.peer, event.installed, event.wanted, now, buckets=event.buckets, size=event.size
        )

    def _nodes_refused(self, event: events.NodesRefused, now: Instant) -> None:
        self.transfer.on_refused(event.peer, event.reason, now)

    def _transfer_failed(self, _event: events.TransferFailed, now: Instant) -> None:
        self.transfer.on_failed(now)

    def _state_installed(self, event: events.StateInstalled, now: Instant) -> None:
        seq = event.summary.seq
        came = self.transfer.progress
        self._outbox.note(
            "state-transfer-finished", seq=seq, nodes=came.nodes, bytes=came.size, moves=came.moves
        )
        self.transfer.finished()
        self.queue.jump(seq)
        self._next_deadline = event.next_deadline
        self.pool.sessions.reset(event.sessions)
        self.pool.drop_settled(event.sessions)
        self.suspicion.executed(len(self.pool) > 0, now)
        self.checkpoints.repaired(seq, checkpoint_digest(event.summary))
        self.queue.hand_out(self.views.view)
        self._released(DIVERGED, now)

    def _peer_connected(self, _event: events.PeerConnected, now: Instant) -> None:
        self.retransmission.heartbeat(self._position(), now)

    def _peer_disconnected(self, event: events.PeerDisconnected, now: Instant) -> None:
        self.suspicion.disconnected(event.replica, now)

    # -- heartbeats and falling behind

    def _beat(self, now: Instant) -> None:
        self.retransmission.heartbeat(self._position(), now)
        self._relay()
        self.recoveries.pass_on_again()
        if self.incarnations.confirmed:
            self.amnesia.ask(self.incarnations.known(self._context.id))

    def _look_behind(self, now: Instant) -> None:
        """Nothing executed for a while: fetch batches, and if that fails, a whole state (R23)."""
        moved = self.queue.executed != self._executed_before
        self._stuck = 0 if moved else self._stuck + 1
        self._executed_before = self.queue.executed
        if self._stuck == 0:
            return
        certified = self.checkpoints.best_certified()
        if (
            certified is not None
            and certified.seq > self.queue.executed
            and self._stuck >= STUCK_HEARTBEATS
            and (self.transfer.target is None or self.transfer.exhausted(now) or self._overtaken)
        ):
            self.transfer.start(certified, now)
        if self.transfer.target or not self.queue.paused:
            self._catch_up()

    @property
    def _behind(self) -> bool:
        """Whether a quorum has gone further than this replica, which cannot judge the primary."""
        return self.queue.paused or self.queue.executed < self.checkpoints.stable_seq

    @property
    def _overtaken(self) -> bool:
        """Whether the batches after the state that is being fetched are gone, here or elsewhere."""
        target = self.transfer.target
        oldest = self.checkpoints.stable_seq - 2 * self._reach
        return target is not None and (target.seq < self.log.floor or self._known < oldest)

    _handlers: ClassVar[dict[type, Callable[..., None]]] = {
        events.Started: _started,
        events.Received: _received,
        events.ProposalReceived: _proposal,
        events.BatchReceived: _batch,
        events.CommittedBatchReceived: _committed_batch,
        events.CheckpointProofReceived: _checkpoint_proof,
        events.OwnDurable: _own_durable,
        events.Executed: _executed,
        events.NodesInstalled: _nodes_installed,
        events.NodesRefused: _nodes_refused,
        events.TransferFailed: _transfer_failed,
        events.StateInstalled: _state_installed,
        events.PeerConnected: _peer_connected,
        events.PeerDisconnected: _peer_disconnected,
        events.Tick: _tick,
        events.TurnEnded: _turn_ended,
    }


__all__ = ["Foundation", "Replica"]
