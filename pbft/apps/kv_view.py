"""Reading the key-value store: now, and as it was at an uncompacted revision."""

from collections.abc import Iterator

from msgspec import Struct

from pbft.apps.kv_codec import (
    FROM_KEY,
    MAX_KEY_BYTES,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
)
from pbft.apps.kv_layout import (
    HEAD,
    KEYS,
    KEYS_END,
    Change,
    Entry,
    Head,
    Held,
    block_of,
    decode_entry,
    decode_head,
    entry_key,
    first_of,
    load_block,
    value_key,
)
from pbft.apps.state_machine import ReadableState, Refused


class Found(Struct, frozen=True):
    """A live key and what it holds."""

    key: bytes
    held: Held


class Budget:
    """How many bytes of keys and values one operation may still return, with all its parts."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def spend(self, found: KeyValue) -> None:
        """Raises Refused where the result would become too large."""
        self._left -= len(found.key) + len(found.value) + 16
        if self._left < 0:
            raise Refused("result too large: ask for fewer keys at a time")


def check_range(key: bytes, range_end: bytes) -> None:
    """Raises Refused for keys that the store does not take."""
    if not key:
        raise Refused("key is not provided")
    if len(key) > MAX_KEY_BYTES or len(range_end) > MAX_KEY_BYTES + 1:
        raise Refused(f"key is longer than {MAX_KEY_BYTES} bytes")


class View:
    """What can be read of `state`; every read takes its result's size from `budget`."""

    def __init__(self, state: ReadableState, budget: Budget) -> None:
        self._state = state
        self._budget = budget
        self.head: Head = decode_head(state.get(HEAD))

    @property
    def revision(self) -> int:
        """The revision that reads of "now" see."""
        return self.head.revision

    def entry(self, key: bytes) -> Entry | None:
        """The newest change of `key`."""
        raw = self._state.get(entry_key(key))
        return None if raw is None else decode_entry(raw)

    def load(self, found: Found, *, keys_only: bool = False) -> KeyValue:
        """The whole of what was found, to be returned. Raises Refused if that becomes too much."""
        loaded = self.peek(found, keys_only=keys_only)
        self._budget.spend(loaded)
        return loaded

    def peek(self, found: Found, *, keys_only: bool = False) -> KeyValue:
        """The whole of what was found, to be looked at."""
        held = found.held
        value = b"" if keys_only else self._value(held)
        return KeyValue(found.key, value, held.create, held.mod, held.version, held.lease)

    def _value(self, held: Held) -> bytes:
        if not held.apart:
            return held.value
        value = self._state.get(value_key(held.apart))
        assert value is not None, "a value is there as long as somebody may read it"
        return value

    def entries(
        self, key: bytes, range_end: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Entry]]:
        """The keys of a range with their newest changes, deleted ones included."""
        if not range_end:
            entry = self.entry(key)
            return iter(() if entry is None else ((key, entry),))
        return self._scan(key, range_end, reverse)

    def _scan(self, key: bytes, range_end: bytes, reverse: bool) -> Iterator[tuple[bytes, Entry]]:
        # The lowest key there can be is b"\0", so a range from it is one from the beginning.
        start = entry_key(key)
        end = KEYS_END if range_end == FROM_KEY else entry_key(range_end)
        if end <= start:
            return
        for raw_key, raw in self._state.range(start, end, reverse=reverse):
            yield raw_key[len(KEYS) :], decode_entry(raw)

    def live(
        self, key: bytes, range_end: bytes, *, revision: int = 0, reverse: bool = False
    ) -> Iterator[Found]:
        """The keys of a range that are there at `revision` (0: now), in order, lazily."""
        since = self._first_after(revision) if revision else 0
        for name, entry in self.entries(key, range_end, reverse=reverse):
            now = not since or entry.newest < since
            held = entry.held if now else self._replaced_since(entry, since)
            if held is not None:
                yield Found(name, held)

    def _first_after(self, revision: int) -> int:
        """The number of the first change after an uncompacted revision, made or still to come."""
        if revision == self.head.revision:
            return self.head.changes + 1
        low, high = self.head.oldest, block_of(self.head.changes) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._begins_after(middle, revision) else (middle, high)
        earlier = sum(change.revision <= revision for change in load_block(self._state, low))
        return first_of(low) + earlier

    def _begins_after(self, block: int, revision: int) -> bool:
        return load_block(self._state, block)[0].revision > revision

    def _replaced_since(self, entry: Entry, since: int) -> Held | None:
        """What the key's first change from `since` on has replaced; there is one."""
        number = min(finger for finger in entry.fingers if finger >= since)
        while True:
            change = self.change(number)
            if change.jump >= since:
                number = change.jump
            elif change.previous >= since:
                number = change.previous
            else:
                return change.replaced

    def change(self, number: int) -> Change:
        """The change with this number, which is not compacted."""
        block = block_of(number)
        return load_block(self._state, block)[number - first_of(block)]

    def do(self, step: Put | Range | Delete) -> PutResult | RangeResult | DeleteResult:
        """Answer one step. Raises Refused."""
        if isinstance(step, Range):
            return self.range(step)
        raise Refused("a query cannot write: order this operation")

    def range(self, operation: Range) -> RangeResult:
        """Answer a Range. Raises Refused."""
        check_range(operation.key, operation.range_end)
        self._check_revision(operation.revision)
        found = self.live(
            operation.key,
            operation.range_end,
            revision=operation.revision,
            reverse=operation.descending,
        )
        if operation.count_only:
            return RangeResult(self.revision, count=sum(1 for _ in found))
        return self._collect(found, operation.limit, operation.keys_only)

    def _collect(self, found: Iterator[Found], limit: int, keys_only: bool) -> RangeResult:
        kvs: list[KeyValue] = []
        for each in found:
            if limit and len(kvs) == limit:
                return RangeResult(self.revision, tuple(kvs), more=True, count=len(kvs))
            kvs.append(self.load(each, keys_only=keys_only))
        return RangeResult(self.revision, tuple(kvs), count=len(kvs))

    def _check_revision(self, revision: int) -> None:
        if revision > self.head.revision:
            raise Refused("required revision is a future revision")
        if revision and revision < self.head.compacted:
            raise Refused("required revision has been compacted")
