"""The Database port in memory: for tests, and below the simulated disk.

What is committed outlives `crash`, which stands for the end of the process. Snapshots share a table
with the database until one of them is open while a commit changes that table; then the commit works
on a copy.
"""

from collections.abc import Iterator, Mapping, Sequence

from sortedcontainers import SortedDict

from pbft.storage.database import MAX_RECORD_KEY_BYTES, StorageFailure
from pbft.storage.overlay import Absent, Overlay

Tables = dict[str, SortedDict]


class MemoryDatabase:
    """Tables in memory; see the module's text."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._tables: Tables = {name: SortedDict() for name in tables}
        self._readers: dict[int, MemorySnapshot] = {}
        self._writer: MemoryTransaction | None = None
        self._closed = False

    def begin(self) -> "MemoryTransaction":
        """Open the write transaction. Raises RuntimeError while another one is open."""
        self._check_open()
        if self._writer is not None:
            raise RuntimeError("a write transaction is already open")
        self._writer = MemoryTransaction(self, self._tables)
        return self._writer

    def snapshot(self) -> "MemorySnapshot":
        """A view of what is committed now."""
        self._check_open()
        snapshot = MemorySnapshot(self, dict(self._tables))
        self._readers[id(snapshot)] = snapshot
        return snapshot

    @property
    def crowded(self) -> bool:
        """Never: its room has no bound."""
        return False

    def close(self) -> None:
        """End everything that is open. Idempotent."""
        for reader in [*self._readers.values(), *filter(None, (self._writer,))]:
            reader.end()
        self._readers.clear()
        self._writer = None
        self._closed = True

    def crash(self) -> None:
        """End the process and start the next one: open work is gone, committed state is there."""
        self.close()
        self._closed = False

    def forget(self, reader: "MemoryReader") -> None:
        """A snapshot or the transaction has ended."""
        if reader is self._writer:
            self._writer = None
        self._readers.pop(id(reader), None)

    def apply(self, writes: dict[str, Overlay]) -> None:
        """Make a transaction's writes visible to whatever is opened from now on."""
        for name, overlay in writes.items():
            table = self._own(name)
            for key, value in overlay.changes.items():
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = value

    def _own(self, name: str) -> SortedDict:
        table = self._tables[name]
        if any(reader.shares(name, table) for reader in self._readers.values()):
            table = self._tables[name] = table.copy()
        return table

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFailure("the database is closed")


class MemoryReader:
    """Reads in one set of tables."""

    def __init__(self, database: MemoryDatabase, tables: Tables) -> None:
        self._database = database
        self._tables: Tables | None = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises StorageFailure once this is closed."""
        value: bytes | None = self.table(table).get(key)
        return value

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The records with start <= key < end, in order."""
        if end is not None and start >= end:
            return
        for key in self.table(table).irange(start, end, (True, False), reverse):
            yield key, self.table(table)[key]

    def table(self, name: str) -> SortedDict:
        """The committed records of a table."""
        if self._tables is None:
            raise StorageFailure("the snapshot or transaction has ended")
        return self._tables[name]

    def end(self) -> None:
        """Refuse all further reads."""
        self._tables = None


class MemorySnapshot(MemoryReader):
    """A view that stays as it was."""

    def shares(self, name: str, table: SortedDict) -> bool:
        """Whether this view reads `table` itself and not a copy."""
        return self._tables is not None and self._tables[name] is table

    @property
    def growth(self) -> int:
        """There is no file."""
        return 0

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self.end()
        self._database.forget(self)


class MemoryTransaction(MemoryReader):
    """The write transaction: an overlay per table."""

    def __init__(self, database: MemoryDatabase, tables: Tables) -> None:
        super().__init__(database, tables)
        self._writes: dict[str, Overlay] = {name: Overlay() for name in tables}

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, this transaction's own writes included."""
        committed = super().get(table, key)
        change = self._writes[table].get(key)
        return committed if isinstance(change, Absent) else change

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The records with start <= key < end, this transaction's own writes included."""

        def below(start: bytes, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
            return super(MemoryTransaction, self).scan(table, start, end, reverse=reverse)

        yield from self._writes[table].range(below, start, end, reverse)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty or too long."""
        if not 1 <= len(key) <= MAX_RECORD_KEY_BYTES:
            raise ValueError("a record's key has 1 to 511 bytes")
        self._change(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        """Remove `key` if it is there."""
        self._change(table, key, None)

    def write(self, table: str, changes: Mapping[bytes, bytes | None]) -> list[bytes]:
        """Put every value, delete every key without one; returns the keys that were not there."""
        missing = []
        for key, value in changes.items():
            if value is not None:
                self.put(table, key, value)
            elif self.get(table, key) is None:
                missing.append(key)
            else:
                self.delete(table, key)
        return missing

    def commit(self) -> None:
        """Make it visible. Raises StorageFailure where this has ended before."""
        self.table(next(iter(self._writes)))
        self._database.apply(self._writes)
        self.abort()

    def abort(self) -> None:
        """Forget it. Idempotent, and without effect after `commit`."""
        self.end()
        self._database.forget(self)

    def _change(self, table: str, key: bytes, value: bytes | None) -> None:
        self.table(table)
        self._writes[table].set(key, value)
