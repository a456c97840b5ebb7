"""The deterministic execution of committed batches: alike, byte by byte, on every replica.

Whatever a request is, it leaves a leaf: executed, executed before (the same leaf again), or not
executed for a reason that follows from the replicated sessions (R11, R15-R18, R45).
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from pbft.apps.state_machine import Context, State, StateMachine
from pbft.config import Parameters
from pbft.core.batches import BatchContent
from pbft.core.context import microseconds
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import (
    CONFLICT,
    EXECUTED,
    OUT_OF_WINDOW,
    REFUSED,
    SESSION_EXPIRED,
    SESSION_REFUSED,
    OperationResult,
    ReplyLeaf,
    Request,
    Results,
)
from pbft.node.operations import ApplicationState, Operations
from pbft.node.sessions import Header, Outcome, Sessions
from pbft.storage.state_map import StateIncomplete


class ExecutionState(ApplicationState, Protocol):
    """What execution needs of the state store."""

    @property
    def time(self) -> int:
        """The agreed time (µs) of the last batch."""
        ...

    @property
    def sessions(self) -> State: ...

    def begin_batch(self, seq: int, time: int) -> None:
        """From here on, writes belong to `seq`, at the agreed `time`."""
        ...


class Execution(Struct, frozen=True):
    """What came of a batch: one leaf per request in order, and what changed of the sessions."""

    seq: int
    time: int
    leaves: tuple[ReplyLeaf, ...]
    sessions: tuple[SessionView | EvictedMark, ...]


class Executor:
    """Executes batches of `machine`'s operations; `admitted` are the public keys of the clients.

    Every method raises StorageFailure, MemoryError, RecursionError or OSError where this machine is
    in trouble; the replica must stop then (R47). While a state is being fetched, all that need it
    raise StateIncomplete.
    """

    def __init__(
        self,
        store: ExecutionState,
        machine: StateMachine,
        parameters: Parameters,
        admitted: frozenset[bytes],
    ) -> None:
        self._store = store
        self._window = parameters.client_window
        self._max_kept = parameters.max_kept_result_bytes
        self._max_result = parameters.max_result_bytes
        self._interval = parameters.checkpoint_interval
        self._idle = microseconds(parameters.session_idle_ms)
        self._admitted = admitted
        self._operations = Operations(store, machine, parameters)
        self._sessions = Sessions(store.sessions, parameters.sessions_per_client)

    def execute(self, seq: int, content: BatchContent) -> Execution:
        """Execute the batch of `seq`."""
        time = max(self._store.time, content.batch.time)
        self._store.begin_batch(seq, time)
        self._operations.begin_batch()
        self._operations.tick(Context(time=time, client=b"", session=0, seq=seq))
        leaves = tuple(
            self._settle(request, digest, seq, time)
            for request, digest in zip(content.requests, content.digests, strict=True)
        )
        if seq % self._interval == 0:
            self._sessions.evict_idle(time - self._idle)
        return Execution(seq, time, leaves, self._sessions.take_changes())

    def query(self, operations: Sequence[bytes]) -> tuple[OperationResult, ...]:
        """Answer queries from the state as it is (R20)."""
        return self._operations.query(operations)

    @property
    def reads(self) -> int:
        """How much the last `query` has read: entries, and KiB of their values."""
        return self._operations.reads

    def next_deadline(self) -> int | None:
        """The agreed time (µs) at which a tick falls due, or None."""
        return self._operations.next_deadline()

    def session_facts(self) -> tuple[SessionView | EvictedMark, ...]:
        """All that the core must know of sessions, for a start or after a state transfer."""
        return self._sessions.facts()

    def reload(self) -> None:
        """The state was replaced as a whole by a state transfer."""
        self._sessions.reload()

    def cached(self, request: Request, digest: bytes) -> ReplyLeaf | None:
        """What can be said of `request` without ordering it, now and for ever (R14).

        None where it may yet execute (a replica that lags behind must not call a session expired
        that it has not seen opened), and while a state is being fetched.
        """
        try:
            return self._cached(request, digest)
        except StateIncomplete:
            return None

    def _cached(self, request: Request, digest: bytes) -> ReplyLeaf | None:
        evicted = self._sessions.highest_evicted(request.client)
        header = self._sessions.header((request.client, request.session))
        if header is None:
            gone = request.session <= evicted
            return self._gone(request, digest) if gone else None
        if request.bundle == 0:
            return self._opened(request, digest, header)
        if request.bundle <= header.low:
            return _leaf(request, digest, OUT_OF_WINDOW)
        return self._executed(request, digest, header)

    def _gone(self, request: Request, digest: bytes) -> ReplyLeaf:
        if request.bundle == 0:
            return self._refused(request, digest)
        return _leaf(request, digest, SESSION_EXPIRED)

    # -- one request

    def _settle(self, request: Request, digest: bytes, seq: int, time: int) -> ReplyLeaf:
        if request.client not in self._admitted:
            return _leaf(request, digest, SESSION_EXPIRED)
        if request.bundle == 0:
            return self._open(request, digest, seq, time)
        key = (request.client, request.session)
        header = self._sessions.header(key)
        if header is None:
            return _leaf(request, digest, SESSION_EXPIRED)
        acknowledged = min(request.acknowledged, request.bundle - 1)
        header = self._sessions.acknowledge(key, header, acknowledged)
        if not header.low < request.bundle <= header.low + self._window:
            return _leaf(request, digest, OUT_OF_WINDOW)
        executed = self._executed(request, digest, header)
        return executed or self._execute(request, digest, seq, time)

    def _open(self, request: Request, digest: bytes, seq: int, time: int) -> ReplyLeaf:
        key = (request.client, request.session)
        header = self._sessions.header(key)
        if header is not None:
            return self._opened(request, digest, header)
        if request.operations or not self._sessions.is_free(key):
            return self._refused(request, digest)
        self._sessions.open(key, digest, seq, time)
        return _leaf(request, digest, EXECUTED)

    def _opened(self, request: Request, digest: bytes, header: Header) -> ReplyLeaf:
        if header.opening == digest:
            return _leaf(request, digest, EXECUTED)
        return self._refused(request, digest)

    def _refused(self, request: Request, digest: bytes) -> ReplyLeaf:
        free = self._sessions.lowest_free(request.client).to_bytes(8, "big")
        return _leaf(request, digest, SESSION_REFUSED, (OperationResult(REFUSED, free),))

    def _executed(self, request: Request, digest: bytes, header: Header) -> ReplyLeaf | None:
        """The leaf of a bundle whose number has been executed (R15), or None."""
        if request.bundle not in header.executed:
            return None
        outcome = self._sessions.outcome((request.client, request.session), request.bundle)
        assert outcome is not None, "an executed bundle above the low mark has its outcome"
        if outcome.request != digest:
            return _leaf(request, digest, CONFLICT)
        return _leaf(request, digest, EXECUTED, outcome.results, outcome.seq)

    def _execute(self, request: Request, digest: bytes, seq: int, time: int) -> ReplyLeaf:
        context = Context(time=time, client=request.client, session=request.session, seq=seq)
        key = (request.client, request.session)
        room = self._sessions.room(key, self._max_kept, self._max_result)
        results = self._operations.execute(request, context, room)
        self._sessions.record(key, request.bundle, Outcome(digest, results, seq), seq, time)
        return _leaf(request, digest, EXECUTED, results, seq)


def _leaf(
    request: Request, digest: bytes, status: int, results: Results = (), seq: int = 0
) -> ReplyLeaf:
    named = request.client, request.session, request.bundle
    return ReplyLeaf(*named, digest, status, results, seq)
