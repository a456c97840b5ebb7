"""The map as an application sees it: what it may cost is bounded, and what fails is remembered.

One operation could walk the whole store, and hold up everybody (R43). So the reads of a bundle are
counted, alike on every replica: an entry counts one, and one more for each KiB of its value. And an
application may catch what it likes, but a failure of this machine's own must not become its result
(R47).
"""

from collections.abc import Iterator

from pbft.apps.state_machine import Refused, State
from pbft.storage.database import StorageFailure
from pbft.storage.state_map import StateIncomplete

OWN_TROUBLE = (StorageFailure, StateIncomplete, MemoryError, RecursionError, OSError)
"""Shortage of memory, stack or disk, storage failures: the replica must stop, not answer."""


class Guard:
    """What may still be read, and the first failure of this machine's own."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._failure: BaseException | None = None

    def allow(self, reads: int | None) -> None:
        """From here on at most `reads` may be read; None: as much as it takes."""
        self._left = reads

    def count(self, value: bytes | None) -> None:
        """One entry was read. Raises Refused where that was too much."""
        if self._left is None:
            return
        self._left -= 1 if value is None else 1 + (len(value) >> 10)
        if self._left < 0:
            raise Refused("too much is read at once: ask for less at a time")

    @property
    def exhausted(self) -> bool:
        """Whether too much was read."""
        return self._left is not None and self._left < 0

    def remember(self, failure: BaseException) -> None:
        """It must be raised again, whatever the application does with it."""
        self._failure = self._failure or failure

    def check(self) -> None:
        """Raises the failure that an application has swallowed."""
        if self._failure is not None:
            raise self._failure


class GuardedView:
    """A map that can only be read."""

    __slots__ = ("_guard", "_state")

    def __init__(self, state: State, guard: Guard) -> None:
        self._state = state
        self._guard = guard

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises Refused where too much is read."""
        try:
            value = self._state.get(key)
        except OWN_TROUBLE as failure:
            self._guard.remember(failure)
            raise
        self._guard.count(value)
        return value

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries with start <= key < end in order of their keys; lazily."""
        try:
            for entry in self._state.range(start, end, reverse=reverse):
                self._guard.count(entry[1])
                yield entry
        except OWN_TROUBLE as failure:
            self._guard.remember(failure)
            raise


class GuardedState(GuardedView):
    """The map while an operation is applied."""

    __slots__ = ()

    def put(self, key: bytes, value: bytes) -> None:
        """Raises Refused for a key that is empty or too long, or a value that is too large."""
        self._state.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        self._state.delete(key)
