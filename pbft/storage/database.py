"""The port behind which a disk lives: ordered tables of bytes with durable, atomic transactions.

`pbft.storage.lmdb_database` is the real one; `pbft.simulation.disk` loses what was not committed,
tears and fails on command.

Keys have 1 to 511 bytes; the tables are fixed when the database is opened, and naming another one
is a KeyError.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

MAX_RECORD_KEY_BYTES = 511


class StorageFailure(Exception):
    """The disk refused a read or a write. The replica stops: nothing is retried (R47)."""


class CorruptRecord(StorageFailure):
    """A record does not match its checksum (R41)."""


class Reader(Protocol):
    """A consistent view of all tables. Once it is closed, reading raises StorageFailure."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises CorruptRecord, StorageFailure."""
        ...

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """The records with start <= key < end (no upper bound where `end` is None), in order.

        Lazy. What a transaction writes into the table while it is being scanned may or may not be
        seen by the scan.
        """
        ...


class Snapshot(Reader, Protocol):
    """A view that stays as it was while the database moves on."""

    @property
    def growth(self) -> int:
        """By how many bytes the database's file has grown since this was opened."""
        ...

    def close(self) -> None:
        """Let go of the pages that it holds. Idempotent."""
        ...


class Transaction(Reader, Protocol):
    """Reads see its own writes; nothing is visible to others, or durable, before `commit`."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty or too long, and StorageFailure."""
        ...

    def delete(self, table: str, key: bytes) -> None:
        """Remove `key` if it is there."""
        ...

    def write(self, table: str, changes: Mapping[bytes, bytes | None]) -> list[bytes]:
        """Put every value, delete every key without one; returns the keys that were not there.

        Raises like `put`. Fastest in order of the keys.
        """
        ...

    def commit(self) -> None:
        """Make it all durable at once: when this returns, it survives a power cut.

        Raises StorageFailure; after that the database opens no transaction and no snapshot any
        more, since nobody can tell what has reached the disk.
        """
        ...

    def abort(self) -> None:
        """Forget it. Idempotent, and without effect after `commit`."""
        ...


class Database(Protocol):
    """One environment: a fixed set of named tables."""

    def begin(self) -> Transaction:
        """Open the one write transaction; it stays on this thread. RuntimeError if one is open."""
        ...

    def snapshot(self) -> Snapshot:
        """Open a view of what is committed now. It may be used and closed on any thread."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether half of the room that it may ever take is taken."""
        ...

    def close(self) -> None:
        """Forget what is open, release the directory. Idempotent."""
        ...


@contextmanager
def writing(database: Database) -> Iterator[Transaction]:
    """A transaction that commits at the end of the block, unless an exception leaves it."""
    transaction = database.begin()
    try:
        yield transaction
        transaction.commit()
    finally:
        transaction.abort()


@contextmanager
def reading(database: Database) -> Iterator[Snapshot]:
    """A snapshot for the length of the block."""
    snapshot = database.snapshot()
    try:
        yield snapshot
    finally:
        snapshot.close()
