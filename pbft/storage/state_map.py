"""One ordered map of the replicated state: changes in memory over the last flushed table."""

from collections.abc import Iterator, Mapping

from pbft.apps.state_machine import MAX_KEY_BYTES, MAX_VALUE_BYTES, Refused
from pbft.storage.database import Reader
from pbft.storage.overlay import Absent, Change, Overlay
from pbft.storage.state_size import StateSize

NOT_BYTES = "keys and values are bytes"


class StateIncomplete(Exception):
    """The state is being fetched from other replicas: there is nothing to read or execute on."""

    def __init__(self) -> None:
        super().__init__("the state is being fetched from other replicas")


class Map:
    """The State of `pbft.apps.state_machine` over the table `name`.

    Writing without an open batch is a RuntimeError. What is neither bytes nor of a proper length is
    refused here, alike on every replica, and not when it is flushed. `size` says how large it is.
    """

    def __init__(self, name: str, reader: Reader | None) -> None:
        self.name = name
        self._reader = reader
        self._overlay = Overlay()
        self.size = StateSize(self._load)
        self._undo: list[tuple[bytes, Change]] | None = None
        self._writable = False
        self._epoch = 0

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises TypeError, StateIncomplete, StorageFailure."""
        if not isinstance(key, bytes):
            raise TypeError(NOT_BYTES)
        change = self._overlay.get(key)
        return self._load(key) if isinstance(change, Absent) else change

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries with start <= key < end; each step sees the map as it is by then.

        It cannot be carried into another batch: that is a RuntimeError.
        """
        if not (isinstance(start, bytes) and isinstance(end, bytes | None)):
            raise TypeError(NOT_BYTES)
        return self._walk(start, end, reverse, self._epoch)

    def put(self, key: bytes, value: bytes) -> None:
        """Raises TypeError, and Refused for a key or value of a length that is not allowed."""
        if not (isinstance(key, bytes) and isinstance(value, bytes)):
            raise TypeError(NOT_BYTES)
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise Refused(f"a key has 1 to {MAX_KEY_BYTES} bytes")
        if len(value) > MAX_VALUE_BYTES:
            raise Refused(f"a value has at most {MAX_VALUE_BYTES} bytes")
        self._change(key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        if not isinstance(key, bytes):
            raise TypeError(NOT_BYTES)
        if 1 <= len(key) <= MAX_KEY_BYTES:
            self._change(key, None)

    # --- for the state store alone -----------------------------------------------------------

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """What has to be flushed: new values, None for deleted keys."""
        return self._overlay.changes

    def open_batch(self) -> None:
        """Allow writes, end the ranges that were begun before."""
        self._epoch += 1
        self._writable = True

    def rebase(self, reader: Reader | None, size: int) -> None:
        """Drop all changes, end the batch and go on over `reader`; None: nothing can be read.

        `size` is that of the table in `reader` (bytes, see `state_size`).
        """
        self._epoch += 1
        self._writable = False
        self._reader = reader
        self._overlay.clear()
        self.size.rebase(size)

    def remember(self) -> None:
        """Start to note what would undo the changes from here on."""
        self._undo = []

    def undo(self) -> None:
        """Take back the changes since `remember`."""
        changes, self._undo = self._undo or [], None
        for key, before in reversed(changes):
            self.size.changed(key, self._overlay.set(key, before), before)
        self._undo = []

    def keep(self) -> None:
        """Stop noting."""
        self._undo = None

    def _change(self, key: bytes, value: bytes | None) -> None:
        if not self._writable:
            raise RuntimeError("no batch is open")
        before = self._overlay.set(key, value)
        self.size.changed(key, before, value)
        if self._undo is not None:
            self._undo.append((key, before))

    def _load(self, key: bytes) -> bytes | None:
        if self._reader is None:
            raise StateIncomplete
        return self._reader.get(self.name, key)

    def _walk(
        self, start: bytes, end: bytes | None, reverse: bool, epoch: int
    ) -> Iterator[tuple[bytes, bytes]]:
        walk = self._overlay.range(self._below, start, end, reverse)
        while True:
            if epoch != self._epoch:
                raise RuntimeError("a range does not outlive its batch")
            entry = next(walk, None)
            if entry is None:
                return
            yield entry

    def _below(
        self, start: bytes, end: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        if self._reader is None:
            raise StateIncomplete
        return self._reader.scan(self.name, start, end, reverse=reverse)
