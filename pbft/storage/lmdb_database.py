"""The real disk: one LMDB environment in one directory.

LMDB writes changed pages to new places and then one of two root pages, so a crash at any moment
leaves the last committed state. The map is opened sparse at its bound and never resized: resizing
would pull the memory from under open transactions. Every value carries a checksum over its table,
its key and itself, since LMDB has none of its own (R41). Every commit is stamped with its own
number: a root page that is not the one of the last commit shows by it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb

from pbft.storage.database import CorruptRecord, StorageFailure
from pbft.storage.directory_lock import DirectoryLock, sync_directory
from pbft.storage.lmdb_transactions import LmdbReader, LmdbSnapshot, LmdbTransaction, Table
from pbft.storage.trouble import advice

MAX_SNAPSHOTS = 126
DATA_NAME = "data.mdb"
STAMP_TABLE, STAMP_KEY = "stamp", b"commit"

_LOCK_NAME = "lock.mdb"
_LOCK_BYTES = 8192  # what LMDB takes for MAX_SNAPSHOTS


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
        self._page_bytes: int = self._environment.stat()["psize"]
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
        with open(self._path / DATA_NAME, "r+b") as data:
            if data.seek(0, 2) < self.size:
                data.truncate(self.size)

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

    @property
    def crowded(self) -> bool:
        """Whether the file has ever had half of its bound; it keeps its length."""
        return 2 * self.size > self._map_bytes

    @property
    def size(self) -> int:
        """The bytes of the file that are, or ever were, in use."""
        return self.pages * self._page_bytes

    @property
    def pages(self) -> int:
        """The same in pages."""
        last: int = self._environment.info()["last_pgno"]
        return last + 1

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


STALE_ROOT = "its root is not the one of its last commit"


def stamp_of(commit: int) -> bytes:
    """What the commit of this number notes of itself."""
    return commit.to_bytes(8, "big")


def _reason(error: Exception, place: Path) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it has reached its configured size: start with a larger one, nothing is lost"
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return "the file is damaged, or it is no LMDB database"
    if isinstance(error, lmdb.ReadersFullError):
        return f"more than {MAX_SNAPSHOTS} snapshots are open"
    return advice(error, place)
