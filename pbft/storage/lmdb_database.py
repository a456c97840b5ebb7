"""The real disk: one LMDB environment in one directory.

LMDB writes changed pages to new places and then one of two root pages, so a crash at any moment
leaves the last committed state. The map is opened sparse at its bound and never resized: resizing
would pull the memory from under open transactions. Every value carries a checksum over its table,
its key and itself, since LMDB has none of its own (R41).
"""

import errno
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import lmdb

from pbft.storage.database import MAX_RECORD_KEY_BYTES, CorruptRecord, StorageFailure
from pbft.storage.directory_lock import DirectoryLock, sync_directory

CHECKSUM_BYTES = 8
MAX_SNAPSHOTS = 64
FULL = "the disk is full: make room on it and start again, nothing is lost"
DATA_NAME, LOCK_NAME = "data.mdb", "lock.mdb"
LOCK_BYTES = 128 + 64 * MAX_SNAPSHOTS  # its head, and a line for each reader
FULL_BYTES = 64 * 1024  # a disk on which no more is left is full


class Table:
    """A named table of one environment, with what binds its records' checksums to it."""

    __slots__ = ("_prefixes", "handle", "name")

    def __init__(self, name: str, handle: "lmdb._Database") -> None:
        encoded = name.encode()
        self.name = name
        self.handle = handle
        self._prefixes = [
            struct.pack(">HH", len(encoded), length) + encoded
            for length in range(MAX_RECORD_KEY_BYTES + 1)
        ]

    def seal(self, key: bytes, value: bytes) -> bytes:
        """What is stored for `value` under `key`."""
        return self._checksum(key, value) + value

    def unseal(self, key: bytes, stored: bytes) -> bytes:
        """The value inside `stored`. Raises CorruptRecord."""
        value = stored[CHECKSUM_BYTES:]
        if self._checksum(key, value) != stored[:CHECKSUM_BYTES]:
            raise CorruptRecord(f"corrupt record in table {self.name!r} under key {key.hex()}")
        return value

    def _checksum(self, key: bytes, value: bytes) -> bytes:
        covered = self._prefixes[len(key)] + key + value
        return blake2b(covered, digest_size=CHECKSUM_BYTES).digest()


class LmdbDatabase:
    """The Database port over LMDB in the directory `path`, which is made if it is missing.

    `map_bytes` bounds the size of the file. With `durable` false nothing is synced: for benchmarks
    only. Raises DirectoryInUse, StorageFailure.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], map_bytes: int, *, durable: bool = True
    ) -> None:
        self._path = path
        self._map_bytes = map_bytes
        self._dead: str | None = None
        self._writer: LmdbTransaction | None = None
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_size(path / DATA_NAME, map_bytes)
            self._lock = DirectoryLock(path)
        except OSError as error:
            raise StorageFailure(
                f"cannot open the database in {path}: {self._reason(error)}"
            ) from None
        fresh = not (path / DATA_NAME).exists()
        try:
            self._open(tables, map_bytes, durable)
        except (lmdb.Error, OSError) as error:
            if fresh:  # half of a first page would be taken for damage at the next start
                (path / DATA_NAME).unlink(missing_ok=True)
            self._lock.release()
            raise StorageFailure(
                f"cannot open the database in {path}: {self._reason(error)}"
            ) from None

    def _open(self, tables: Sequence[str], map_bytes: int, durable: bool) -> None:
        _reserve_lock_file(self._path / LOCK_NAME)
        self._environment = lmdb.open(
            str(self._path),
            map_size=map_bytes,
            max_dbs=len(tables),
            max_readers=MAX_SNAPSHOTS,
            sync=durable,
            metasync=durable,
            mode=0o600,
        )
        self._pad()
        with self._environment.begin(write=True) as transaction:
            self._tables = {
                name: Table(name, self._environment.open_db(name.encode(), txn=transaction))
                for name in tables
            }
        sync_directory(self._path)
        sync_directory(self._path.parent)

    def _pad(self) -> None:
        """Where the file was cut short, reading it must give an error and not SIGBUS."""
        expected = self.pages * self.page_bytes
        with open(self._path / DATA_NAME, "r+b") as data:
            if data.seek(0, 2) < expected:
                data.truncate(expected)

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

    @property
    def crowded(self) -> bool:
        """Whether the file has ever had half of its bound; it keeps its length."""
        return 2 * self.pages * self.page_bytes > self._map_bytes

    @property
    def page_bytes(self) -> int:
        """The size of a page."""
        size: int = self._environment.stat()["psize"]
        return size

    @property
    def pages(self) -> int:
        """How many pages the file has, free ones included; it never gets fewer."""
        last: int = self._environment.info()["last_pgno"]
        return last + 1

    @property
    def used_pages(self) -> int:
        """How many of them hold records as they are now; the others are free or hold old ones."""
        with self._environment.begin() as transaction:
            trees = [transaction.stat(table.handle) for table in self._tables.values()]
        trees.append(self._environment.stat())
        return sum(
            tree["branch_pages"] + tree["leaf_pages"] + tree["overflow_pages"] for tree in trees
        )

    def close(self) -> None:
        """Abort what is open and let others open the directory. Idempotent."""
        if self._writer is not None:
            self._writer.abort()
        self._dead = self._dead or "it is closed"
        self._environment.close()
        self._lock.release()

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise StorageFailure(f"the database in {self._path} is unusable: {self._dead}")

    def failed(self, error: Exception) -> StorageFailure:
        """What to raise where LMDB raised `error`."""
        return StorageFailure(f"the database in {self._path} failed: {self._reason(error)}")

    def written(self) -> None:
        """The write transaction has ended."""
        self._writer = None

    def die(self, error: Exception) -> StorageFailure:
        """A commit has failed: nobody knows what reached the disk, so refuse all that follows."""
        self._dead = f"a commit failed ({self._reason(error)})"
        return self.failed(error)

    def _reason(self, error: Exception) -> str:
        return FULL if self._is_full(error) else _reason(error)

    def _is_full(self, error: Exception) -> bool:
        """LMDB calls it an input/output error where the last write before the end was cut short."""
        if isinstance(error, lmdb.DiskError) or getattr(error, "errno", None) == errno.ENOSPC:
            return True
        if not str(error).endswith(os.strerror(errno.EIO)):
            return False
        disk = os.statvfs(self._path)
        return disk.f_bavail * disk.f_frsize <= FULL_BYTES


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
        return None if stored is None else place.unseal(key, stored)

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
                yield key, place.unseal(key, stored)
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


def _check_size(file: Path, bound: int) -> None:
    size = file.stat().st_size if file.exists() else 0
    if size > bound:
        raise StorageFailure(
            f"{file} has {size} bytes, more than its bound of {bound}: start with a larger one"
        )


def _reserve_lock_file(path: Path) -> None:
    """LMDB writes this file through its map: where the disk has no room, that would be SIGBUS."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(handle, 0, LOCK_BYTES)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it has reached its configured size: start with a larger one, nothing is lost"
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return "the file is damaged, or it is no LMDB database"
    if isinstance(error, lmdb.ReadersFullError):
        return f"more than {MAX_SNAPSHOTS} snapshots are open"
    return str(error)
