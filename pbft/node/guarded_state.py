"""The map as an application sees it: what it may cost is bounded, and what fails is remembered.

One operation could walk the whole store, and hold up everybody (R43). So the reads of a bundle are
counted, alike on every replica: an entry counts one, and one more for each KiB of its value. And an
application may catch what it likes, but a failure of this machine's own must not become its result
(R47).
"""

from collections.abc import Callable, Iterator

from pbft.apps.state_machine import Refused, State
from pbft.storage.database import StorageFailure
from pbft.storage.state_map import StateIncomplete

OWN_TROUBLE = (StorageFailure, StateIncomplete, MemoryError, RecursionError, OSError)
"""Shortage of memory, stack or disk, storage failures: the replica must stop, not answer."""

UNBOUNDED = 2**63
TOO_MUCH = "too much is read at once: ask for less at a time"


class Guard:
    """What may still be read, and the first failure of this machine's own."""

    __slots__ = ("failure", "left")

    def __init__(self) -> None:
        self.left = UNBOUNDED
        self.failure: BaseException | None = None

    @property
    def exhausted(self) -> bool:
        """Whether too much was read."""
        return self.left < 0

    def check(self) -> None:
        """Raises the failure that an application has swallowed."""
        if self.failure is not None:
            raise self.failure


class GuardedView:
    """A map that can only be read. These calls are the hot path of every application."""

    __slots__ = ("_get", "_guard", "_range")

    def __init__(self, state: State, guard: Guard) -> None:
        self._get = state.get
        self._range = state.range
        self._guard = guard

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises Refused where too much is read."""
        guard = self._guard
        try:
            value = self._get(key)
        except OWN_TROUBLE as failure:
            guard.failure = guard.failure or failure
            raise
        guard.left -= 1 if value is None else 1 + (len(value) >> 10)
        if guard.left < 0:
            raise Refused(TOO_MUCH)
        return value

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries with start <= key < end in order of their keys; lazily."""
        guard = self._guard
        try:
            for entry in self._range(start, end, reverse=reverse):
                guard.left -= 1 + (len(entry[1]) >> 10)
                if guard.left < 0:
                    raise Refused(TOO_MUCH)
                yield entry
        except OWN_TROUBLE as failure:
            guard.failure = guard.failure or failure
            raise


class GuardedState(GuardedView):
    """The map while an operation is applied."""

    __slots__ = ("delete", "put")

    def __init__(self, state: State, guard: Guard) -> None:
        super().__init__(state, guard)
        self.put: Callable[[bytes, bytes], None] = state.put
        self.delete: Callable[[bytes], None] = state.delete
