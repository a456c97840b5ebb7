"""The replica's log on disk: one durable transaction per turn, before anything is sent (R39)."""

from collections.abc import Iterable, Iterator

import msgspec

from pbft.codec import MalformedMessage
from pbft.core.output import Write
from pbft.core.records import TABLES, Restored, restore
from pbft.storage.database import CorruptRecord, Database, Snapshot


class LogStore:
    """Gathers writes until something must be sent, then commits them all at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, bytes], bytes | None] = {}
        self.commits = 0

    def add(self, writes: Iterable[Write]) -> None:
        """Gather; the last write to a record wins."""
        for write in writes:
            self._waiting[write.table, write.key] = write.value

    def commit(self) -> None:
        """Make everything gathered durable. Raises StorageFailure: never try again after that."""
        if not self._waiting:
            return
        transaction = self._database.begin()
        for (table, key), value in self._waiting.items():
            if value is None:
                transaction.delete(table, key)
            else:
                transaction.put(table, key, value)
        transaction.commit()
        self._waiting.clear()
        self.commits += 1

    def restore(self) -> Restored:
        """Everything that was committed. Raises CorruptRecord."""
        snapshot = self._database.snapshot()
        try:
            return restore(_records(snapshot))
        except (msgspec.DecodeError, MalformedMessage) as error:
            raise CorruptRecord(f"a record of the log cannot be read: {error}") from error
        finally:
            snapshot.close()


def _records(snapshot: Snapshot) -> Iterator[tuple[str, bytes, bytes]]:
    for table in TABLES:
        for key, value in snapshot.scan(table):
            yield table, key, value
