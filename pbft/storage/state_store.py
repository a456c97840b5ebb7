"""The replicated state: two ordered maps, their trees, and how far execution has come.

Executed batches gather in memory. `flush` writes all of it with its sequence number and time in
one transaction, so what is on disk is always the state right after exactly one sequence number;
after a restart the log from there on is executed again. While a state is being fetched from others
(R23) the disk holds a mixture: that is marked durably, and until the whole of it matches its
certified target nothing is executed, read or digested.
"""

from types import TracebackType

import msgspec

from pbft.codec import encode
from pbft.messages import StateSummary, TreeNode, TreePath
from pbft.storage.database import CorruptRecord, Database, Reader, Snapshot, reading, writing
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_map import Map, StateIncomplete
from pbft.storage.state_size import ENTRY_BYTES
from pbft.storage.state_trees import TREES, replacement, tree_at, write_entries
from pbft.storage.tree_node import EMPTY_DIGEST

GENESIS = StateSummary(0, 0, EMPTY_DIGEST, EMPTY_DIGEST)

_META = "meta"
_FLUSHED = b"state"
_TARGET = b"transfer"
_decoder = msgspec.msgpack.Decoder(StateSummary)


class StateStore:
    """The state in `database`, whose tables are STATE_TABLES. Raises StorageFailure throughout.

    `seq` is the last executed sequence number and `time` the agreed time (µs), both 0 at first.
    `transfer_target` is the state that is being fetched, or None.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._base: Snapshot = database.snapshot()
        self._flushed, self.transfer_target = stored_summary(self._base)
        self.seq, self.time = self._flushed.seq, self._flushed.time
        self.application = Map("application", self._base)
        self.sessions = Map("sessions", self._base)
        self._savepoint: Savepoint | None = None
        if self.transfer_target is not None:
            self._let_go()
        else:
            self._rebase()

    # --- execution ---------------------------------------------------------------------------

    def begin_batch(self, seq: int, time: int) -> None:
        """Go on to the batch `seq`. ValueError unless it is the next one and time does not go back.

        Raises StateIncomplete.
        """
        self._check_complete()
        if seq != self.seq + 1 or time < self.time:
            raise ValueError(
                f"batch {seq} at {time} µs does not follow batch {self.seq} at {self.time} µs"
            )
        self.seq, self.time = seq, time
        for state in self._maps():
            state.open_batch()

    def savepoint(self) -> "Savepoint":
        """Note the changes of one operation, to be able to undo them; one at a time."""
        if self._savepoint is not None:
            raise RuntimeError("savepoints do not nest")
        self._savepoint = Savepoint(self)
        return self._savepoint

    def release(self) -> None:
        """The savepoint has ended."""
        self._savepoint = None

    def flush(self) -> StateSummary:
        """Make the state after `seq` durable, in one transaction, and return what it digests to.

        Raises StateIncomplete. After a StorageFailure the store is of no use any more.
        """
        self._check_complete()
        if self._savepoint is not None:
            raise RuntimeError("an operation is being applied")
        if (self.seq, self.time) != (self._flushed.seq, self._flushed.time):
            self._base.close()
            with writing(self._database) as transaction:
                for tree, state in zip(TREES, self._maps(), strict=True):
                    write_entries(transaction, tree, state.changes)
                flushed = StateSummary(
                    self.seq, self.time, *(tree.root(transaction) for tree in TREES)
                )
                transaction.put(_META, _FLUSHED, encode(flushed))
            self._restart(flushed)
        return self._flushed

    def summary(self) -> StateSummary:
        """The state that was flushed last. Raises StateIncomplete."""
        self._check_complete()
        return self._flushed

    def pin(self) -> PinnedState:
        """The state that was flushed last, to be served to others while this one moves on.

        Raises StateIncomplete.
        """
        summary = self.summary()
        return PinnedState(self._database.snapshot(), summary, self._database.crowded)

    # --- fetching the state of others --------------------------------------------------------

    def begin_transfer(self, target: StateSummary) -> None:
        """Mark the state as incomplete, durably, and forget what is not flushed.

        What is on disk stays as the base of the comparison. Another target may replace the first.
        """
        with writing(self._database) as transaction:
            transaction.put(_META, _TARGET, encode(target))
        self.transfer_target = target
        self.seq, self.time = self._flushed.seq, self._flushed.time
        self._let_go()

    def differing_roots(self) -> list[TreePath]:
        """The paths of the trees that differ from the target: where a transfer begins."""
        target = self._target()
        wanted = (target.application_root, target.sessions_root)
        with reading(self._database) as reader:
            return [
                tree.path
                for tree, root in zip(TREES, wanted, strict=True)
                if tree.root(reader) != root
            ]

    def diff(self, node: TreeNode) -> list[TreePath]:
        """The children of a verified inner node of the target that differ from what is here.

        An empty child (EMPTY_DIGEST) needs no fetching: install a node without entries.
        """
        self._target()
        tree = tree_at(node.path)
        with reading(self._database) as reader:
            children = ((node.path + bytes([i]), wanted) for i, wanted in enumerate(node.children))
            return [path for path, wanted in children if tree.digest_at(reader, path) != wanted]

    def install(self, *nodes: TreeNode) -> None:
        """Make what lies below the paths of these verified buckets equal to them. One transaction.

        ValueError for an inner node.
        """
        self._target()
        changes: list[dict[bytes, bytes | None]] = [{} for _ in TREES]
        with writing(self._database) as transaction:
            for node in nodes:
                changes[tree_at(node.path).path[0]].update(replacement(transaction, node))
            for tree, changed in zip(TREES, changes, strict=True):
                write_entries(transaction, tree, changed)

    def finish_transfer(self) -> bool:
        """Whether everything matches the target; if so the state is that one, durably."""
        target = self._target()
        if self.differing_roots():
            return False
        with writing(self._database) as transaction:
            transaction.put(_META, _FLUSHED, encode(target))
            transaction.delete(_META, _TARGET)
        self.transfer_target = None
        self._restart(target)
        return True

    # --- inside ------------------------------------------------------------------------------

    def _maps(self) -> tuple[Map, Map]:
        return self.application, self.sessions

    def _restart(self, flushed: StateSummary) -> None:
        self._flushed = flushed
        self.seq, self.time = flushed.seq, flushed.time
        self._base = self._database.snapshot()
        self._rebase()

    def _rebase(self) -> None:
        for tree, state in zip(TREES, self._maps(), strict=True):
            entries, size = tree.extent(self._base)
            state.rebase(self._base, size + entries * ENTRY_BYTES)

    def _let_go(self) -> None:
        self._base.close()
        for state in self._maps():
            state.rebase(None, 0)

    def _check_complete(self) -> None:
        if self.transfer_target is not None:
            raise StateIncomplete

    def _target(self) -> StateSummary:
        if self.transfer_target is None:
            raise RuntimeError("no state is being fetched")
        return self.transfer_target


class Savepoint:
    """Use it as a context: an exception that leaves it undoes the changes made inside."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._application, self._sessions = store.application, store.sessions

    def __enter__(self) -> "Savepoint":
        self._application.remember()
        self._sessions.remember()
        return self

    def rollback(self) -> None:
        """Undo the changes since the context was entered."""
        self._application.undo()
        self._sessions.undo()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
        self._application.keep()
        self._sessions.keep()
        self._store.release()


def stored_summary(reader: Reader) -> tuple[StateSummary, StateSummary | None]:
    """The state that was flushed last, and the one that is being fetched. Raises CorruptRecord."""
    return _read(reader, _FLUSHED) or GENESIS, _read(reader, _TARGET)


def _read(reader: Reader, key: bytes) -> StateSummary | None:
    stored = reader.get(_META, key)
    try:
        return None if stored is None else _decoder.decode(stored)
    except msgspec.DecodeError:
        raise CorruptRecord(f"no state summary in table {_META!r} under {key!r}") from None
