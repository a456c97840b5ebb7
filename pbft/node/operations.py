"""Running an application's operations so that only deterministic outcomes become results (R47).

A refusal is a result; any other exception of the application is one fixed error result; both leave
no writes. Shortage of memory, stack or disk and storage failures are this machine's own trouble:
they propagate, and the replica stops.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pbft.apps.state_machine import Context, ReadableState, Refused, State, StateMachine
from pbft.config import Parameters
from pbft.messages import FAILED, OK, REFUSED, OperationResult, Request
from pbft.storage.database import StorageFailure
from pbft.storage.state_map import StateIncomplete

MAX_REFUSAL_BYTES = 1024

_OWN_TROUBLE = (StorageFailure, StateIncomplete, MemoryError, RecursionError, OSError)

APPLICATION_ERROR = OperationResult(FAILED, b"application error")
OPERATION_TOO_LARGE = OperationResult(REFUSED, b"operation too large")
TOO_MANY_OPERATIONS = OperationResult(REFUSED, b"too many operations in one bundle")
RESULT_TOO_LARGE = OperationResult(REFUSED, b"result too large")
RESULTS_TOO_LARGE = OperationResult(REFUSED, b"results of the bundle too large together")


class Savepoint(Protocol):
    """A moment that the state can go back to."""

    def rollback(self) -> None:
        """Undo every write since it was made."""
        ...


class ApplicationState(Protocol):
    """The application's map, with savepoints."""

    @property
    def application(self) -> State: ...

    def savepoint(self) -> AbstractContextManager[Savepoint]: ...


class ReadOnly:
    """A map that can only be read."""

    __slots__ = ("__state",)

    def __init__(self, state: ReadableState) -> None:
        self.__state = state

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        return self.__state.get(key)

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries with start <= key < end in order of their keys; lazily."""
        return self.__state.range(start, end, reverse=reverse)


class Operations:
    """Applies operations of `machine` to the state, within the limits of `parameters`.

    The values of one bundle's results have room for `max_result_bytes` together, so that a reply
    stays within a frame and a session's kept results within its window times that.
    """

    def __init__(
        self, store: ApplicationState, machine: StateMachine, parameters: Parameters
    ) -> None:
        self._store = store
        self._machine = machine
        self._parameters = parameters
        self._view = ReadOnly(store.application)

    def execute(self, request: Request, context: Context) -> tuple[OperationResult, ...]:
        """The results of an ordered bundle, one per operation."""
        if request.read_only:
            return self.query(request.operations)

        def apply(operation: bytes, room: int) -> OperationResult:
            with self._store.savepoint() as savepoint:
                result = self._attempt(
                    lambda: self._machine.apply(self._store.application, operation, context), room
                )
                if result.code != OK:
                    savepoint.rollback()
            return result

        return self._each(request.operations, apply)

    def query(self, operations: Sequence[bytes]) -> tuple[OperationResult, ...]:
        """The answers to queries, from the state as it is."""

        def query(operation: bytes, room: int) -> OperationResult:
            return self._attempt(lambda: self._machine.query(self._view, operation), room)

        return self._each(operations, query)

    def _each(
        self, operations: Sequence[bytes], run: Callable[[bytes, int], OperationResult]
    ) -> tuple[OperationResult, ...]:
        if len(operations) > self._parameters.max_bundle_operations:
            return (TOO_MANY_OPERATIONS,) * len(operations)
        room = self._parameters.max_result_bytes
        results = []
        for operation in operations:
            fits = len(operation) <= self._parameters.max_operation_bytes
            result = run(operation, room) if fits else OPERATION_TOO_LARGE
            results.append(result)
            room -= len(result.value) if result.code == OK else 0
        return tuple(results)

    def _attempt(self, run: Callable[[], bytes], room: int) -> OperationResult:
        result = _outcome(run)
        if result.code != OK or len(result.value) <= room:
            return result
        alone = len(result.value) > self._parameters.max_result_bytes
        return RESULT_TOO_LARGE if alone else RESULTS_TOO_LARGE

    # -- replicated time

    def next_deadline(self) -> int | None:
        """When the application next wants a tick (µs); None also where it cannot say."""
        try:
            deadline = self._machine.next_deadline(self._view)
        except _OWN_TROUBLE:
            raise
        except Exception:
            return None
        return deadline if isinstance(deadline, int) else None

    def tick(self, context: Context) -> None:
        """Let the application do what is due at the context's time; a failed tick does nothing."""
        deadline = self.next_deadline()
        if deadline is None or deadline > context.time:
            return

        def tick() -> bytes:
            self._machine.tick(self._store.application, context)
            return b""

        with self._store.savepoint() as savepoint:
            if _outcome(tick).code != OK:
                savepoint.rollback()


def _outcome(run: Callable[[], bytes]) -> OperationResult:
    try:
        value = run()
    except Refused as refusal:
        return OperationResult(REFUSED, _refusal_text(refusal))
    except _OWN_TROUBLE:
        raise
    except Exception:
        return APPLICATION_ERROR
    return OperationResult(OK, value) if isinstance(value, bytes) else APPLICATION_ERROR


def _refusal_text(refusal: Refused) -> bytes:
    # Only a string is surely the same on every replica: an object's repr may hold its address.
    text = refusal.args[0] if refusal.args and isinstance(refusal.args[0], str) else "refused"
    cut = text.encode("utf-8", "replace")[:MAX_REFUSAL_BYTES]
    return cut.decode("utf-8", "ignore").encode()
