"""What an application is: a deterministic function over an ordered byte map.

The same operations in the same order must give the same bytes on every replica. So an application
sees no clock, no randomness and no disk: only the map, the operation, and the agreed context.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

MAX_KEY_BYTES = 480
MAX_VALUE_BYTES = 8 * 1024 * 1024


class Refused(Exception):
    """Raise it in `apply` or `query` to refuse an operation: its writes are undone, and the message
    (UTF-8) becomes the result, alike on every replica (R47)."""


class ReadableState(Protocol):
    """An ordered map from byte keys (1..480 bytes) to byte values (at most 8 MiB)."""

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        ...

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries with start <= key < end in order of their keys; lazily."""
        ...


class State(ReadableState, Protocol):
    """The map while an operation is applied. Writes of a refused operation are undone."""

    def put(self, key: bytes, value: bytes) -> None:
        """Raises Refused for a key that is empty or too long, or a value that is too large."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        ...


class Context(Struct, frozen=True):
    """What all replicas agree on about the operation that is applied."""

    time: int  # µs since 1970, proposed by the primary, never going back (R12)
    client: bytes  # the public key of the client that signed it
    session: int
    seq: int  # the sequence number of its batch


class StateMachine(ABC):
    """An application. Its instances hold no state of their own: all of it is in the map."""

    @abstractmethod
    def apply(self, state: State, operation: bytes, context: Context) -> bytes:
        """Execute `operation` and return its result. May raise Refused."""

    @abstractmethod
    def query(self, state: ReadableState, operation: bytes) -> bytes:
        """Answer a read-only `operation`, ordered or not. May raise Refused."""

    def makes_room(self, operation: bytes) -> bool:
        """Whether `operation` is there to make room, now or after a compaction, and so may use the
        reserve when the state has reached its quota. It must be of no use for storing anything."""
        return False

    def next_deadline(self, state: ReadableState) -> int | None:
        """The agreed time (µs) at which `tick` has something to do, or None."""
        return None

    def tick(self, state: State, context: Context) -> None:  # noqa: B027
        """Do what falls due at `context.time`; called before the operations of each batch.

        It is never refused for lack of space, so what it adds must be bounded by what operations
        have put there: at most half as much again.
        """
