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
from pbft.apps.kv_compaction import closed, raise_floor, sweep
from pbft.apps.kv_layout import (
    HEAD,
    MAX_INLINE_BYTES,
    Change,
    Entry,
    Head,
    Held,
    advance,
    block_end,
    block_key,
    block_of,
    encode_record,
    entry_key,
    extended,
    value_key,
)
from pbft.apps.kv_view import Budget, Found, View, check_range
from pbft.apps.state_machine import Refused, State

MAX_DELETED = 10_000  # keys that one operation may delete: its work and memory are bounded
COMPACT_STEP = 16  # blocks that an explicit compaction drops itself

_NEVER_CHANGED = Entry(None, 0, ())


class Writer(View):
    """A view that also writes; later reads of "now" see the writes. `commit` ends it."""

    def __init__(self, state: State, budget: Budget) -> None:
        super().__init__(state, budget)
        self._store = state
        self._added = 0  # changes
        self._deleted = 0

    @property
    def revision(self) -> int:
        """The revision that reads of "now" see."""
        return self.head.revision + (1 if self._added else 0)

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
        old = entry.held if entry else None
        previous = self.load(Found(key, old)) if operation.prev_kv and old else None
        revision = self.head.revision + 1
        create, version = (old.create, old.version + 1) if old else (revision, 1)
        value, apart = self._placed(operation.value)
        self._change(key, entry, Held(value, create, revision, version, apart))
        return PutResult(self.revision, previous)

    def _placed(self, value: bytes) -> tuple[bytes, int]:
        """The value as its key's next change holds it, and where it lies apart (0: nowhere)."""
        if len(value) <= MAX_INLINE_BYTES:
            return value, 0
        number = self._newest + 1
        self._store.put(value_key(number), value)
        return b"", number

    def delete(self, operation: Delete) -> DeleteResult:
        """Carry out a Delete. Raises Refused."""
        check_range(operation.key, operation.range_end)
        doomed = self._doomed(operation)
        previous: tuple[KeyValue, ...] = ()
        if operation.prev_kv:
            previous = tuple(self.load(Found(key, held)) for key, _, held in doomed)
        for key, entry, _ in doomed:
            self._change(key, entry, None)
        return DeleteResult(self.revision, len(doomed), previous)

    def _doomed(self, operation: Delete) -> list[tuple[bytes, Entry, Held]]:
        doomed = []
        for key, entry in self.entries(operation.key, operation.range_end):
            if entry.held is None:
                continue
            self._deleted += 1
            if self._deleted > MAX_DELETED:
                raise Refused(f"an operation may delete at most {MAX_DELETED} keys")
            doomed.append((key, entry, entry.held))
        return doomed

    def _change(self, key: bytes, entry: Entry | None, held: Held | None) -> None:
        self._added += 1
        number, store = self._newest, self._store
        entry = entry or _NEVER_CHANGED
        position, fingers = entry.position + 1, entry.fingers
        jump, moved = advance(fingers, position, number)
        previous = fingers[0] if fingers else 0
        change = Change(key, self.revision, held is None, previous, jump, entry.held)
        block = block_key(block_of(number))
        store.put(block, extended(store.get(block), change))
        store.put(entry_key(key), encode_record(Entry(held, position, moved)))

    @property
    def _newest(self) -> int:
        """The number of the newest change."""
        return self.head.changes + self._added

    def compact(self, revision: int) -> CompactResult:
        """Carry out a Compact. Raises Refused."""
        if revision > self.head.revision:
            raise Refused("required revision is a future revision")
        if revision <= self.head.compacted:
            raise Refused("required revision has been compacted")
        head = raise_floor(self.head, revision)
        if revision == head.revision:
            head = closed(head)
        self._save(sweep(self._store, head, COMPACT_STEP))
        return CompactResult(self.revision)

    def commit(self, history: int) -> None:
        """Make the changes a revision, of which the last `history` stay readable."""
        if not self._added:
            return
        old, revision, newest = self.head, self.revision, self._newest
        filled = not old.due and newest >= block_end(old.oldest)
        due = revision if filled else old.due
        head = Head(revision, old.compacted, newest, old.oldest, due)
        # More than what was added, so that dropping always catches up.
        blocks = 1 + block_of(newest) - block_of(old.changes)
        self._save(sweep(self._store, raise_floor(head, revision - history + 1), blocks))

    def _save(self, head: Head) -> None:
        self._store.put(HEAD, encode_record(head))
