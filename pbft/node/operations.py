"""Running an application's operations so that only deterministic outcomes become results (R47).

A refusal is a result; any other exception of the application is one fixed error result; both leave
no writes. Shortage of memory, stack or disk and storage failures are this machine's own trouble:
they propagate, and the replica stops.
"""

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from pbft.apps.state_machine import Context, Refused, State, StateMachine
from pbft.config import Parameters
from pbft.messages import CROWDED, FAILED, OK, REFUSED, OperationResult, Request
from pbft.node.guarded_state import OWN_TROUBLE, UNBOUNDED, Guard, GuardedState, GuardedView
from pbft.node.quota import Quota
from pbft.storage.state_size import StateSize

MAX_REFUSAL_BYTES = 1024

_STRAY = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What an application may raise for reasons of its own; a KeyboardInterrupt is the operator's."""

APPLICATION_ERROR = OperationResult(FAILED, b"application error")
OPERATION_TOO_LARGE = OperationResult(REFUSED, b"operation too large")
TOO_MANY_OPERATIONS = OperationResult(REFUSED, b"too many operations in one bundle")
RESULT_TOO_LARGE = OperationResult(REFUSED, b"result too large")
TOO_MUCH_KEPT = OperationResult(REFUSED, b"too many results are not yet acknowledged")
CROWDED_OUT = OperationResult(CROWDED, b"too much at once, with other operations of the client")


class Savepoint(Protocol):
    """A moment that the state can go back to."""

    def rollback(self) -> None:
        """Undo every write since it was made."""
        ...


class SizedState(State, Protocol):
    """A map that knows how large it is."""

    @property
    def size(self) -> StateSize: ...


class ApplicationState(Protocol):
    """The application's map, with savepoints."""

    @property
    def application(self) -> SizedState: ...

    def savepoint(self) -> AbstractContextManager[Savepoint]: ...


class Operations:
    """Applies operations of `machine` to the state, within the limits of `parameters`.

    The values of one bundle's results have room for `max_result_bytes` together, so that a reply
    stays within a frame; and the bundles of one client in one batch share what a bundle may read,
    or a batch full of them would hold up everybody. An operation for which others before it have
    left no room is CROWDED: undone, and worth trying again.
    """

    def __init__(
        self, store: ApplicationState, machine: StateMachine, parameters: Parameters
    ) -> None:
        self._store = store
        self._machine = machine
        self._parameters = parameters
        self._quota = Quota(parameters, self._makes_room)
        self._guard = Guard()
        self._reads_left: dict[bytes, int] = {}  # of each client, in this batch
        self._view = GuardedView(store.application, self._guard)
        self._state = GuardedState(store.application, self._guard)

    def execute(self, request: Request, context: Context, room: int) -> tuple[OperationResult, ...]:
        """The results of an ordered bundle, one per operation; `room` bytes of them may be kept."""
        most = self._parameters.max_bundle_reads
        self._guard.left = self._reads_left.get(request.client, most)
        try:
            return self._execute(request, context, min(room, self._parameters.max_result_bytes))
        finally:
            self._reads_left[request.client] = self._guard.left

    def _execute(
        self, request: Request, context: Context, room: int
    ) -> tuple[OperationResult, ...]:
        run = self._query if request.read_only else partial(self._apply, context)
        return self._each(request.operations, run, room)

    def _apply(self, context: Context, operation: bytes, room: int) -> OperationResult:
        size = self._store.application.size
        bound = self._quota.bound(size)
        with self._store.savepoint() as savepoint:
            result = self._attempt(room, self._machine.apply, self._state, operation, context)
            if result.code == OK and self._quota.refuses(operation, size, bound):
                result = self._quota.refusal
            if result.code != OK:
                savepoint.rollback()
        return result

    def _makes_room(self, operation: bytes) -> bool:
        said = self._outcome(lambda: bytes([bool(self._machine.makes_room(operation))]))
        return said.value == b"\1"

    def begin_batch(self) -> None:
        """Every client may read anew."""
        self._reads_left.clear()

    def query(self, operations: Sequence[bytes]) -> tuple[OperationResult, ...]:
        """The answers to queries, from the state as it is."""
        self._guard.left = self._parameters.max_bundle_reads
        return self._each(operations, self._query, self._parameters.max_result_bytes)

    @property
    def reads(self) -> int:
        """How much the last `query` has read."""
        return self._parameters.max_bundle_reads - self._guard.left

    def _query(self, operation: bytes, room: int) -> OperationResult:
        return self._attempt(room, self._machine.query, self._view, operation)

    def _each(
        self,
        operations: Sequence[bytes],
        run: Callable[[bytes, int], OperationResult],
        room: int,
    ) -> tuple[OperationResult, ...]:
        if len(operations) > self._parameters.max_bundle_operations:
            return (TOO_MANY_OPERATIONS,) * len(operations)
        results: list[OperationResult] = []
        for operation in operations:
            fresh = self._guard.left == self._parameters.max_bundle_reads
            fits = len(operation) <= self._parameters.max_operation_bytes
            result = run(operation, room) if fits else OPERATION_TOO_LARGE
            result = self._blame(result, first=not results, fresh=fresh)
            results.append(result)
            room -= len(result.value) if result.code == OK else 0
        return tuple(results)

    def _blame(self, result: OperationResult, *, first: bool, fresh: bool) -> OperationResult:
        """Too much: is it the operation's own fault, or that of others before it?"""
        if first and result is CROWDED_OUT:
            return TOO_MUCH_KEPT
        exhausted = result.code == REFUSED and self._guard.exhausted
        return CROWDED_OUT if exhausted and not fresh else result

    def _attempt(self, room: int, run: Callable[..., bytes], *arguments: Any) -> OperationResult:
        result = self._outcome(run, *arguments)
        if result.code != OK or len(result.value) <= room:
            return result
        alone = len(result.value) > self._parameters.max_result_bytes
        return RESULT_TOO_LARGE if alone else CROWDED_OUT

    # -- replicated time

    def next_deadline(self) -> int | None:
        """When the application next wants a tick (µs); None also where it cannot say."""
        self._guard.left = UNBOUNDED
        try:
            deadline = self._machine.next_deadline(self._view)
        except OWN_TROUBLE:
            raise
        except _STRAY:
            deadline = None
        self._guard.check()
        return deadline if isinstance(deadline, int) else None

    def tick(self, context: Context) -> None:
        """Let the application do what is due at the context's time; a failed tick does nothing."""
        deadline = self.next_deadline()
        if deadline is None or deadline > context.time:
            return

        def tick() -> bytes:
            self._machine.tick(self._state, context)
            return b""

        self._guard.left = UNBOUNDED
        with self._store.savepoint() as savepoint:
            if self._outcome(tick).code != OK:
                savepoint.rollback()

    def _outcome(self, run: Callable[..., bytes], *arguments: Any) -> OperationResult:
        try:
            value = run(*arguments)
            result = OperationResult(OK, value) if isinstance(value, bytes) else APPLICATION_ERROR
        except Refused as refusal:
            result = OperationResult(REFUSED, _refusal_text(refusal))
        except OWN_TROUBLE:
            raise
        except _STRAY:
            result = APPLICATION_ERROR
        self._guard.check()
        return result


def _refusal_text(refusal: Refused) -> bytes:
    # Only a string is surely the same on every replica: an object's repr may hold its address.
    text = refusal.args[0] if refusal.args and isinstance(refusal.args[0], str) else "refused"
    cut = text.encode("utf-8", "replace")[:MAX_REFUSAL_BYTES]
    return cut.decode("utf-8", "ignore").encode()
