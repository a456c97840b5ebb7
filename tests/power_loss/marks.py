"""What the recorded process says between its calls: which transaction begins, and which is done.

The marks stand in the recording itself, in the order in which they and the calls happened. So the
replay knows of every moment what must be on the disk, and what may be.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from pbft.storage.database import Database, Snapshot, Transaction, reading
from pbft.storage.lmdb_database import LmdbDatabase

HEADER = struct.Struct("<BiqI")
RECORD_TO, RECORD_UNDER = "PBFT_RECORD_TO", "PBFT_RECORD_UNDER"

Content = dict[tuple[str, bytes], bytes]
"""All records of one database, by table and key."""
Writes = list[tuple[str, bytes, bytes | None]]


class Mark(Struct, array_like=True):
    """`opened`: both databases were opened, with this content. `begun`: these writes are about to
    be committed. `done`: they are, says the database."""

    what: Literal["opened", "begun", "done"]
    database: str  # log or state
    writes: Writes


def say(mark: Mark) -> None:
    """Put `mark` into the recording that this process is part of."""
    payload = msgspec.msgpack.encode(mark)
    to = os.open(os.environ[RECORD_TO], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(to, HEADER.pack(ord("K"), -1, 0, len(payload)) + payload)
    finally:
        os.close(to)


def content_of(database: Database, tables: tuple[str, ...]) -> Content:
    """Everything in `database`, every checksum checked."""
    with reading(database) as snapshot:
        return {(table, key): value for table in tables for key, value in snapshot.scan(table)}


class AnnouncedDatabase:
    """The Database port over a real one; says when a transaction begins and is done."""

    def __init__(self, database: LmdbDatabase, name: str, tables: tuple[str, ...]) -> None:
        self._database = database
        self._name = name
        found = content_of(database, tables)
        say(Mark("opened", name, [(table, key, value) for (table, key), value in found.items()]))

    def begin(self) -> Transaction:
        return AnnouncedTransaction(self._database.begin(), self._name)

    def snapshot(self) -> Snapshot:
        return self._database.snapshot()

    @property
    def crowded(self) -> bool:
        return self._database.crowded

    def close(self) -> None:
        self._database.close()

    def crash(self) -> None:
        """The simulated machine stops; whoever opened the database closes it."""


class AnnouncedTransaction:
    """Passes everything on, and remembers what was written."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._name = name
        self._writes: Writes = []

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._transaction.get(table, key)

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._transaction.scan(table, start, end, reverse=reverse)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._writes.append((table, key, value))
        self._transaction.put(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self._writes.append((table, key, None))
        self._transaction.delete(table, key)

    def write(self, table: str, changes: Mapping[bytes, bytes | None]) -> list[bytes]:
        self._writes += [(table, key, value) for key, value in changes.items()]
        return self._transaction.write(table, changes)

    def commit(self) -> None:
        say(Mark("begun", self._name, self._writes))
        self._transaction.commit()
        say(Mark("done", self._name, []))

    def abort(self) -> None:
        self._transaction.abort()
