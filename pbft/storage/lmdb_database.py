"""The real disk: one LMDB environment in one directory.

LMDB writes changed pages to new places and then one of two root pages, so a crash at any moment
leaves the last committed state. The map is opened sparse at its bound and never resized: resizing
would pull the memory from under open transactions. Every value carries a checksum over its table,
its key and itself, since LMDB has none of its own (R41). Every commit is stamped with its own
number: a root page that is not the one of the last commit shows by it.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb

from pbft.storage.database import MAX_RECORD_KEY_BYTES, CorruptRecord, StorageFailure
from pbft.storage.directory_lock import DirectoryLock, sync_directory
from pbft.storage.seal import Seal
from pbft.storage.trouble import advice

MAX_SNAPSHOTS = 126
DATA_NAME = "data.mdb"
STAMP_TABLE, STAMP_KEY = "stamp", b"commit"

_LOCK_NAME = "lock.mdb"
_LOCK_BYTES = 8192  # what LMDB takes for MAX_SNAPSHOTS


class Table(Seal):
    """A named table of one environment."""

    __slots__ = ("handle",)

    def __init__(self, name: str, handle: "lmdb._Database") -> None:
        super().__init__(name)
        self.handle = handle


class LmdbDatabase:
    """The Database port over LMDB in the directory `path`, which is made if it is missing.

    `map_bytes` bounds the size of the file. With `durable` false nothing is synced: for benchmarks
    only. Raises DirectoryInUse, StorageFailure.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], map_bytes: int, *, durable: bool = True
    ) -> None:
        self._path = path
        self._dead: str | None = None
        self.healthy = True  # until something has failed: then it must be looked at before next use
        self._writer: LmdbTransaction | None = None
        self._environment: Any = None
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = DirectoryLock(path)
        except OSError as error:
            raise StorageFailure(
                f"cannot open the database in {path}: {advice(error, path)}"
            ) from None
        try:
            self._reserve_lock()
            self._environment = self._map(map_bytes, len(tables) + 1, durable)
            self._open(tables)
        except (lmdb.Error, OSError, StorageFailure) as error:
            self._release()
            if isinstance(error, StorageFailure):
                raise
            raise StorageFailure(
                f"cannot open the database in {path}: {_reason(error, path)}"
            ) from None

    def _map(self, map_bytes: int, tables: int, durable: bool) -> lmdb.Environment:
        return lmdb.open(
            str(self._path),
            map_size=map_bytes,
            max_dbs=tables,
            max_readers=MAX_SNAPSHOTS,
            sync=durable,
            metasync=durable,
            mode=0o600,
        )

    def _open(self, tables: Sequence[str]) -> None:
        self._pad()
        with self._environment.begin(write=True) as transaction:
            self._tables = {
                name: Table(name, self._environment.open_db(name.encode(), txn=transaction))
                for name in (*tables, STAMP_TABLE)
            }
            if transaction.id() > 1:
                self._check_stamp(transaction)
            self.stamp(transaction)
        sync_directory(self._path)
        sync_directory(self._path.parent)

    def _pad(self) -> None:
        """Where the file was cut short, reading it must give an error and not SIGBUS."""
        pages = self._environment.info()["last_pgno"] + 1
        expected = pages * self._environment.stat()["psize"]
        with open(self._path / DATA_NAME, "r+b") as data:
            if data.seek(0, 2) < expected:
                data.truncate(expected)

    def _reserve_lock(self) -> None:
        """LMDB maps this file and writes into it: without room on the disk that is a SIGBUS."""
        (self._path / _LOCK_NAME).write_bytes(bytes(_LOCK_BYTES))

    def stamp(self, transaction: "lmdb.Transaction[bytes]") -> None:
        """Note in a transaction that is about to be committed which one it is."""
        table = self._tables[STAMP_TABLE]
        number = stamp_of(transaction.id())
        transaction.put(STAMP_KEY, table.seal(STAMP_KEY, number), db=table.handle)

    def _check_stamp(self, transaction: "lmdb.Transaction[bytes]") -> None:
        reader = LmdbReader(self, transaction, self._tables)
        if reader.get(STAMP_TABLE, STAMP_KEY) != stamp_of(transaction.id() - 1):
            raise CorruptRecord(f"the file in {self._path} is damaged: {STALE_ROOT}")

    def begin(self) -> "LmdbTransaction":
        """Open the write transaction. Raises RuntimeError while another one is open."""
        self._check_alive()
        if self._writer is not None:
            raise RuntimeError("a write transaction is already open")
        try:
            self._writer = LmdbTransaction(self, self._environment.begin(write=True), self._tables)
        except lmdb.Error as error:
            raise self.failed(error) from None
        return self._writer

    def snapshot(self) -> "LmdbSnapshot":
        """A view of what is committed now; at most MAX_SNAPSHOTS are open at once."""
        self._check_alive()
        try:
            return LmdbSnapshot(self, self._environment.begin(), self._tables)
        except lmdb.Error as error:
            raise self.failed(error) from None

    def close(self) -> None:
        """Abort what is open and let others open the directory. Idempotent."""
        if self._writer is not None:
            self._writer.abort()
        self._dead = self._dead or "it is closed"
        self._release()

    def _release(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._lock.release()

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise StorageFailure(f"the database in {self._path} is unusable: {self._dead}")

    def failed(self, error: Exception) -> StorageFailure:
        """What to raise where LMDB raised `error`."""
        self.healthy = False
        return StorageFailure(f"the database in {self._path} failed: {_reason(error, self._path)}")

    def written(self) -> None:
        """The write transaction has ended."""
        self._writer = None

    def die(self, error: Exception) -> StorageFailure:
        """A commit has failed: nobody knows what reached the disk, so refuse all that follows."""
        self._dead = f"a commit failed ({_reason(error, self._path)})"
        return self.failed(error)


class LmdbReader:
    """Reads in one LMDB transaction, whichever its kind."""

    def __init__(
        self,
        database: LmdbDatabase,
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
        records = self._backwards(place, end) if reverse else self._forwards(place, start)
        try:
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

    def close(self) -> None:
        """Let go of them. Idempotent."""
        self._transaction.abort()


class LmdbTransaction(LmdbReader):
    """The write transaction. LMDB ties it to the thread that began it."""

    def __init__(
        self,
        database: LmdbDatabase,
        transaction: "lmdb.Transaction[bytes]",
        tables: dict[str, Table],
    ) -> None:
        super().__init__(database, transaction, tables)
        self._thread = threading.get_ident()
        self._open = True

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty or too long, and StorageFailure."""
        place = self._tables[table]
        if not 1 <= len(key) <= MAX_RECORD_KEY_BYTES:
            raise ValueError("a record's key has 1 to 511 bytes")
        try:
            self._transaction.put(key, place.seal(key, value), db=place.handle)
        except lmdb.Error as error:
            raise self._database.failed(error) from None

    def delete(self, table: str, key: bytes) -> None:
        """Remove `key` if it is there."""
        try:
            self._transaction.delete(key, db=self._tables[table].handle)
        except lmdb.BadValsizeError:
            return
        except lmdb.Error as error:
            raise self._database.failed(error) from None

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


STALE_ROOT = "its root is not the one of its last commit"


def stamp_of(commit: int) -> bytes:
    """What the commit of this number notes of itself."""
    return commit.to_bytes(8, "big")


def _reason(error: Exception, place: Path) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it has reached its configured size"
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return "the file is damaged, or it is no LMDB database"
    if isinstance(error, lmdb.ReadersFullError):
        return f"more than {MAX_SNAPSHOTS} snapshots are open"
    return advice(error, place)
