"""Reading and writing in one LMDB transaction, with a checksum on every record."""

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

import lmdb

from pbft.storage.database import MAX_RECORD_KEY_BYTES, CorruptRecord, StorageFailure
from pbft.storage.seal import Seal


class Table(Seal):
    """A named table of one environment."""

    __slots__ = ("handle",)

    def __init__(self, name: str, handle: "lmdb._Database") -> None:
        super().__init__(name)
        self.handle = handle


class Owner(Protocol):
    """The database that a transaction is of."""

    healthy: bool

    @property
    def size(self) -> int: ...

    def failed(self, error: Exception) -> StorageFailure: ...

    def die(self, error: Exception) -> StorageFailure: ...

    def stamp(self, transaction: "lmdb.Transaction[bytes]") -> None: ...

    def written(self) -> None: ...


class LmdbReader:
    """Reads in one LMDB transaction, whichever its kind."""

    def __init__(
        self,
        database: Owner,
        transaction: "lmdb.Transaction[bytes]",
        tables: dict[str, Table],
    ) -> None:
        self._database = database
        self._transaction = transaction
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises CorruptRecord, StorageFailure."""
        place = self._tables[table]
        try:
            stored = self._transaction.get(key, None, place.handle)
        except lmdb.BadValsizeError:
            return None
        except lmdb.Error as error:
            raise self._database.failed(error) from None
        return None if stored is None else self._unseal(place, key, stored)

    def _unseal(self, place: Table, key: bytes, stored: bytes) -> bytes:
        try:
            return place.unseal(key, stored)
        except CorruptRecord:
            self._database.healthy = False
            raise

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The records with start <= key < end. Raises CorruptRecord, StorageFailure."""
        place = self._tables[table]
        try:
            records = self._backwards(place, end) if reverse else self._forwards(place, start)
            for key, stored in records:
                if key < start or (end is not None and key >= end):
                    return
                yield key, self._unseal(place, key, stored)
        except lmdb.Error as error:
            raise self._database.failed(error) from None

    def _forwards(self, table: Table, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._transaction.cursor(table.handle)
        return cursor.iternext() if cursor.set_range(start) else iter(())

    def _backwards(self, table: Table, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._transaction.cursor(table.handle)
        if end is None or not cursor.set_range(end):
            return cursor.iterprev()
        return cursor.iterprev() if cursor.prev() else iter(())


class LmdbSnapshot(LmdbReader):
    """A read transaction: it keeps the pages that it sees from being used again."""

    def __init__(
        self,
        database: Owner,
        transaction: "lmdb.Transaction[bytes]",
        tables: dict[str, Table],
    ) -> None:
        super().__init__(database, transaction, tables)
        self._size = database.size

    @property
    def growth(self) -> int:
        """By how many bytes the file has grown since this was opened."""
        return self._database.size - self._size

    def close(self) -> None:
        """Let go of them. Idempotent."""
        self._transaction.abort()


class LmdbTransaction(LmdbReader):
    """The write transaction. LMDB ties it to the thread that began it."""

    def __init__(
        self,
        database: Owner,
        transaction: "lmdb.Transaction[bytes]",
        tables: dict[str, Table],
    ) -> None:
        super().__init__(database, transaction, tables)
        self._thread = threading.get_ident()
        self._open = True

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty or too long, and StorageFailure."""
        place = self._tables[table]
        _check_key(key)
        try:
            self._transaction.put(key, place.seal(key, value), db=place.handle)
        except lmdb.Error as error:
            raise self._database.failed(error) from None

    def delete(self, table: str, key: bytes) -> None:
        """Remove `key` if it is there."""
        try:
            self._remove(key, self._tables[table])
        except lmdb.Error as error:
            raise self._database.failed(error) from None

    def write(self, table: str, changes: Mapping[bytes, bytes | None]) -> list[bytes]:
        """As `put` and `delete`, in one go; returns the keys to delete that were not there."""
        place = self._tables[table]
        missing: list[bytes] = []
        try:
            with self._transaction.cursor(place.handle) as cursor:
                put, seal = cursor.put, place.seal
                for key, value in changes.items():
                    if value is not None:
                        _check_key(key)
                        put(key, seal(key, value))
                    elif not self._remove(key, place):
                        missing.append(key)
        except lmdb.Error as error:
            raise self._database.failed(error) from None
        return missing

    def _remove(self, key: bytes, place: Table) -> bool:
        try:
            return self._transaction.delete(key, db=place.handle)
        except lmdb.BadValsizeError:
            return False

    def commit(self) -> None:
        """Sync and return, or raise StorageFailure and leave a database that refuses everything."""
        self._end()
        try:
            self._database.stamp(self._transaction)
            self._transaction.commit()
        except lmdb.Error as error:
            raise self._database.die(error) from None
        finally:
            self._database.written()

    def abort(self) -> None:
        """Forget it. Idempotent, and without effect after `commit`."""
        if self._open:
            self._end()
            self._transaction.abort()
            self._database.written()

    def _end(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("a write transaction must end on the thread that began it")
        if not self._open:
            raise StorageFailure("the transaction has ended")
        self._open = False


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= MAX_RECORD_KEY_BYTES:
        raise ValueError("a record's key has 1 to 511 bytes")
