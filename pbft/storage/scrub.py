"""Reads what is on the disk again, a little at a time, while the replica goes on (R41).

Of the state: each node of the two trees is compared with what is above it, and the entries of each
bucket with the records of the table. So a record that was altered shows, and one that can no longer
be found, which a read alone takes for absent. Of the log: every record, by its checksum. Each step
sees what is committed at that moment; when all was seen it begins again.
"""

from msgspec import Struct

from pbft.messages import StateSummary
from pbft.storage.database import CorruptRecord, Database, Reader, reading
from pbft.storage.examine import LOG_TABLES
from pbft.storage.state_store import stored_summary
from pbft.storage.state_trees import TREES
from pbft.storage.tree_check import node_digest_of
from pbft.storage.tree_columns import Bucket, decode_node, parted
from pbft.storage.tree_node import EMPTY_DIGEST, entry_digest

_PLACES = (*(f"{tree.entries}.nodes" for tree in TREES), *LOG_TABLES)


class Progress(Struct):
    """What was read since the start, and how far the pass that is going on has come."""

    passes: int = 0
    nodes: int = 0
    entries: int = 0
    log_records: int = 0
    table: str = _PLACES[0]


class Scrub:
    """Goes over the databases of a `state` and a `log`, again and again."""

    def __init__(self, state: Database, log: Database) -> None:
        self._state = state
        self._log = log
        self._place = 0
        self._last = b""
        self.progress = Progress()

    def step(self) -> None:
        """Check the next tree node or log record. Raises CorruptRecord, StorageFailure."""
        table = _PLACES[self._place]
        database = self._state if self._place < len(TREES) else self._log
        with reading(database) as reader:
            found = next(reader.scan(table, self._last + b"\0"), None)
            if found is None:
                self._next_table(reader)
            elif self._place < len(TREES):
                self._check_node(reader, *found)
            else:
                self.progress.log_records += 1
        self._last = found[0] if found else b""

    def _next_table(self, reader: Reader) -> None:
        if self._place < len(TREES):
            self._check_root(reader)
        self._place += 1
        if self._place == len(_PLACES):
            self._place = 0
            self.progress.passes += 1
        self.progress.table = _PLACES[self._place]

    def _check_node(self, reader: Reader, path: bytes, stored: bytes) -> None:
        node = decode_node(path, stored)
        digest = node_digest_of(path, node)
        if len(path) > 1 and digest != self._said_above(reader, path):
            raise CorruptRecord(f"the state's tree is not consistent at {path.hex()}")
        self.progress.nodes += 1
        if isinstance(node, Bucket):
            self._check_entries(reader, node)
            return
        for branch, child in enumerate(parted(node.digests)):
            below = path + bytes([branch])
            if child != EMPTY_DIGEST and reader.get(_PLACES[path[0]], below) is None:
                raise CorruptRecord(f"the state's tree has lost its node {below.hex()}")

    def _said_above(self, reader: Reader, path: bytes) -> bytes | None:
        stored = reader.get(_PLACES[path[0]], path[:-1])
        above = decode_node(path[:-1], stored) if stored is not None else None
        return None if above is None or isinstance(above, Bucket) else above.child(path[-1])

    def _check_entries(self, reader: Reader, bucket: Bucket) -> None:
        table = TREES[self._place].entries
        for key, _, digest in bucket.entries():
            value = reader.get(table, key)
            if value is None or entry_digest(key, value) != digest:
                what = "lost" if value is None else "altered"
                raise CorruptRecord(f"the disk has {what} a record of {table!r} ({key.hex()})")
            self.progress.entries += 1

    def _check_root(self, reader: Reader) -> None:
        """Of a state that is complete, the root is the one of its summary."""
        summary, target = stored_summary(reader)
        if target is None and TREES[self._place].root(reader) != _roots(summary)[self._place]:
            raise CorruptRecord("the state's tree is not the one of its summary")


def _roots(summary: StateSummary) -> tuple[bytes, bytes]:
    return summary.application_root, summary.sessions_root
