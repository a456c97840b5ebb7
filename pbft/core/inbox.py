"""What a replica does with each kind of verified message."""

from collections.abc import Callable
from typing import Any, ClassVar

from pbft.codec import request_digest
from pbft.core.consequences import Consequences
from pbft.core.context import Instant
from pbft.core.output import AnswerRead, AnswerState, AnswerStatus, ResendReply, ServeState
from pbft.core.requests import Standing, key_of
from pbft.messages import (
    Checkpoint,
    Commit,
    FetchBatch,
    FetchBatches,
    FetchState,
    Incarnation,
    IncarnationSeen,
    NewView,
    Prepare,
    Read,
    Recovery,
    Request,
    StateNodes,
    StateQuery,
    Status,
    StatusQuery,
    Suspect,
    Verified,
    ViewChange,
)


class Inbox(Consequences):
    """Hands each message to the part that it concerns."""

    def _deliver(self, message: Verified[Any], now: Instant) -> None:
        self._messages[type(message.body)](self, message, now)

    def _request(self, message: Verified[Request], peer: int | bytes, now: Instant) -> None:
        request, digest = message.body, request_digest(message.envelope)
        standing = self.pool.sessions.standing(request)
        from_client = not isinstance(peer, int)
        if standing in (Standing.EXECUTED, Standing.EXPIRED):
            if from_client:
                self._resend(request, digest, now)
            return
        if standing is not Standing.NEW:
            self._outbox.reject(f"request-{standing.value}", request.client)
            return
        added = self.pool.add(message, digest, self.queue.executed)
        if not added and key_of(request) not in self.pool:
            self._outbox.reject("request-over-quota", request.client)
            return
        if not self.ordering.leading and (added or from_client):
            self._outbox.send(self.ordering.primary, message.envelope)
        self.suspicion.request_waits(now)

    def _resend(self, request: Request, digest: bytes, now: Instant) -> None:
        """Answer again, which costs a signature, as often as a client may ask (R14)."""
        if self.resends.spend(request.client, 1, now.mono):
            self._outbox.answers.append(ResendReply(request, digest))
        else:
            self._outbox.reject("resend-over-quota", request.client)

    def _vote(self, message: Verified[Prepare] | Verified[Commit], now: Instant) -> None:
        body = message.body
        self.incarnations.heard(body.replica, body.view, body.seq)
        if self._is_future(message.body.view):
            self.future.keep(message)
        else:
            self._count(message, now)

    def _is_future(self, view: int) -> bool:
        return view > self.views.view or (view == self.views.view and not self.views.active)

    def _checkpoint(self, message: Verified[Checkpoint], now: Instant) -> None:
        self.incarnations.heard(message.body.replica, 0, message.body.seq)
        self._facts(self.checkpoints.on_vote(message), now)

    def _view_change(self, message: Verified[ViewChange], now: Instant) -> None:
        self.incarnations.heard(message.body.replica, message.body.view, 0)
        self._facts(self.views.on_view_change(message, now), now)
        self._facts(self.suspicion.gone(message.body.replica, message.body.view, now), now)

    def _new_view(self, message: Verified[NewView], now: Instant) -> None:
        self._facts(self.views.on_new_view(message), now)

    def _suspect(self, message: Verified[Suspect], now: Instant) -> None:
        self._facts(self.suspicion.on_suspect(message, now), now)

    def _status(self, message: Verified[Status], now: Instant) -> None:
        self.retransmission.on_status(message, self._position(), now)

    def _fetch_batches(self, message: Verified[FetchBatches], now: Instant) -> None:
        self.fetching.on_fetch_batches(message.body, self.checkpoints.stable_proof, now)

    def _fetch_batch(self, message: Verified[FetchBatch], now: Instant) -> None:
        self.fetching.on_fetch_batch(message.body, now)

    def _fetch_state(self, message: Verified[FetchState], _now: Instant) -> None:
        self._outbox.answers.append(ServeState(message.body))

    def _state_nodes(self, message: Verified[StateNodes], now: Instant) -> None:
        target = self.transfer.target
        caught_up = target and not self.queue.paused and target.seq <= self.queue.executed
        if caught_up and not self.transfer.begun:
            self.transfer.finished()  # ordering was faster (R24)
            return
        self.transfer.on_nodes(message, now)
        self.queue.paused = self.queue.paused or self.transfer.begun

    def _incarnation(self, message: Verified[Incarnation], now: Instant) -> None:
        self.incarnations.on_incarnation(message, self.views.view, self._reached, now)

    def _incarnation_seen(self, message: Verified[IncarnationSeen], now: Instant) -> None:
        self._facts(self.incarnations.on_seen(message, now), now)

    def _recovery(self, message: Verified[Recovery], now: Instant) -> None:
        """Help a replica that has forgotten to what it must pass (R41)."""
        body = message.body
        if body.number < self.incarnations.known(body.replica):
            self._outbox.reject("recovery-of-an-earlier-start", body.replica)
            return
        refusal = self.recoveries.refusal(message, self._reached, self.views.view, now)
        if refusal is not None:
            self._outbox.reject(refusal, body.replica)
        elif not self.recoveries.blames(body.replica, self.views.view):
            return
        elif self.checkpoints.stable_seq <= body.above_seq:
            self.suspicion.request_waits(now)
        elif self.ordering.active and self.views.view <= body.above_view:
            self._facts(self.suspicion.suspect(now), now)

    def _passed_on(self, message: Verified[Recovery], peer: int, now: Instant) -> None:
        """Go by the RECOVERY that the primary goes by, or its empty batches would be refused."""
        if peer != self.ordering.primary or not self.ordering.active:
            self._outbox.reject("recovery-not-from-the-primary", peer)
            return
        refusal = self.recoveries.on_passed_on(message, self._reached, self.views.view, now)
        if refusal is not None:
            self._outbox.reject(refusal, peer)

    def _read(self, message: Verified[Read], _now: Instant) -> None:
        allowed = self.may_read(message.body.at_least)
        self._outbox.answers.append(AnswerRead(message.body, refused=not allowed))

    def _status_query(self, message: Verified[StatusQuery], _now: Instant) -> None:
        self._outbox.answers.append(AnswerStatus(message.body))

    def _state_query(self, message: Verified[StateQuery], _now: Instant) -> None:
        self._outbox.answers.append(AnswerState(message.body))

    _messages: ClassVar[dict[type, Callable[..., None]]] = {
        Prepare: _vote,
        Commit: _vote,
        Checkpoint: _checkpoint,
        ViewChange: _view_change,
        NewView: _new_view,
        Suspect: _suspect,
        Status: _status,
        FetchBatches: _fetch_batches,
        FetchBatch: _fetch_batch,
        FetchState: _fetch_state,
        StateNodes: _state_nodes,
        Incarnation: _incarnation,
        IncarnationSeen: _incarnation_seen,
        Recovery: _recovery,
        Read: _read,
        StatusQuery: _status_query,
        StateQuery: _state_query,
    }
