"""Writing to the key-value store: all changes of one operation at one new revision."""

from pbft.apps.kv_codec import (
    CompactResult,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
)
from pbft.apps.kv_compaction import raise_floor, sweep
from pbft.apps.kv_layout import (
    HEAD,
    Change,
    Entry,
    Head,
    advance,
    change_key,
    encode_record,
    entry_key,
    stamp_of,
)
from pbft.apps.kv_view import Budget, Found, View, check_range
from pbft.apps.state_machine import Refused, State

MAX_DELETED = 10_000  # keys that one operation may delete: its work and memory are bounded
COMPACT_STEP = 256  # changes that an explicit compaction looks at itself


class Writer(View):
    """A view that also writes; later reads of "now" see the writes. `commit` ends it."""

    def __init__(self, state: State, budget: Budget) -> None:
        super().__init__(state, budget)
        self._store = state
        self._changes = 0
        self._deleted = 0

    @property
    def revision(self) -> int:
        """The revision that reads of "now" see."""
        return self.head.revision + (1 if self._changes else 0)

    def do(self, step: Put | Range | Delete) -> PutResult | RangeResult | DeleteResult:
        """Carry out one step. Raises Refused."""
        if isinstance(step, Put):
            return self.put(step)
        if isinstance(step, Delete):
            return self.delete(step)
        return self.range(step)

    def put(self, operation: Put) -> PutResult:
        """Carry out a Put. Raises Refused."""
        key = operation.key
        check_range(key, b"")
        entry = self.entry(key)
        previous = self._previous(key, entry) if operation.prev_kv else None
        create, version = self.head.revision + 1, 1
        if entry is not None and entry.version:
            create, version = entry.create, entry.version + 1
        self._append(key, entry, operation.value, create, version)
        return PutResult(self.revision, previous)

    def _previous(self, key: bytes, entry: Entry | None) -> KeyValue | None:
        if entry is None or not entry.version:
            return None
        return self.load(Found(key, entry.stamp))

    def delete(self, operation: Delete) -> DeleteResult:
        """Carry out a Delete. Raises Refused."""
        check_range(operation.key, operation.range_end)
        doomed = self._doomed(operation)
        previous: tuple[KeyValue, ...] = ()
        if operation.prev_kv:
            previous = tuple(self.load(Found(key, entry.stamp)) for key, entry in doomed)
        for key, entry in doomed:
            self._append(key, entry, b"", 0, 0)
        return DeleteResult(self.revision, len(doomed), previous)

    def _doomed(self, operation: Delete) -> list[tuple[bytes, Entry]]:
        doomed = []
        for key, entry in self.entries(operation.key, operation.range_end):
            if not entry.version:
                continue
            self._deleted += 1
            if self._deleted > MAX_DELETED:
                raise Refused(f"an operation may delete at most {MAX_DELETED} keys")
            doomed.append((key, entry))
        return doomed

    def _append(
        self, key: bytes, entry: Entry | None, value: bytes, create: int, version: int
    ) -> None:
        stamp = stamp_of(self.head.revision + 1, self._changes)
        self._changes += 1
        position, fingers = (entry.position, entry.fingers) if entry else (0, ())
        jump, moved = advance(fingers, position + 1, stamp)
        previous = fingers[0] if fingers else 0
        change = Change(key, value, create, version, previous, jump)
        self._store.put(change_key(stamp), encode_record(change))
        renewed = Entry(create, version, position + 1, moved)
        self._store.put(entry_key(key), encode_record(renewed))

    def compact(self, revision: int) -> CompactResult:
        """Carry out a Compact. Raises Refused."""
        if revision > self.head.revision:
            raise Refused("required revision is a future revision")
        if revision <= self.head.compacted:
            raise Refused("required revision has been compacted")
        self._save(sweep(self._store, raise_floor(self.head, revision), COMPACT_STEP))
        return CompactResult(self.revision)

    def commit(self, history: int) -> None:
        """Make the changes a revision, of which the last `history` stay readable."""
        if not self._changes:
            return
        head = Head(self.head.revision + 1, self.head.compacted, self.head.swept)
        head = raise_floor(head, head.revision - history + 1)
        # More than what was added, so that sweeping always catches up.
        self._save(sweep(self._store, head, 2 * self._changes + 2))

    def _save(self, head: Head) -> None:
        self._store.put(HEAD, encode_record(head))
