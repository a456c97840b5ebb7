"""Changes in memory on top of an ordered table that stays as it is.

A range over both is live: each step yields the smallest key above the last one that is there *now*.
So what a caller sees while it writes into the range that it walks depends on the map's content
alone, never on which part of it happens to be on disk. Replicas flush at different moments, and
must not differ by it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sortedcontainers import SortedList

Scan = Callable[[bytes, bytes | None, bool], Iterator[tuple[bytes, bytes]]]


class Absent:
    """The type of ABSENT."""


ABSENT: Final = Absent()
Change = bytes | None | Absent
"""A new value, None for a deleted key, or ABSENT for one that was not touched."""


class Overlay:
    """An ordered map from keys to their changes: a new value, or None for a deletion.

    Keys are put in order when somebody asks for an order, all at once: most often at the end.
    """

    def __init__(self) -> None:
        self._changes: dict[bytes, bytes | None] = {}
        self._order = SortedList()
        self._unordered: list[bytes] = []
        self._shape = 0  # counts the moments at which the set of keys changed

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """All of them, in order of their keys."""
        return {key: self._changes[key] for key in self._ordered()}

    def get(self, key: bytes) -> Change:
        """The change to `key`, or ABSENT."""
        return self._changes.get(key, ABSENT)

    def set(self, key: bytes, change: Change) -> Change:
        """Record a change, or with ABSENT drop it; returns the one before."""
        before = self._changes.get(key, ABSENT)
        if not isinstance(change, Absent):
            self._changes[key] = change
            if before is ABSENT:
                self._unordered.append(key)
                self._shape += 1
        elif before is not ABSENT:
            del self._changes[key]
            self._ordered().remove(key)
            self._shape += 1
        return before

    def clear(self) -> None:
        """Drop all changes."""
        self._changes.clear()
        self._order.clear()
        self._unordered.clear()
        self._shape += 1

    def range(
        self, scan: Scan, start: bytes, end: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries of a range of the changed table. `scan` reads the table below."""
        below = scan(start, end, reverse)
        record = next(below, None)
        last: bytes | None = None
        value: bytes | None
        shape = -1
        while True:
            if shape != self._shape:
                shape = self._shape
                keys = self._keys(start, end, last, reverse)
                key = next(keys, None)
            if key is None or (record is not None and _precedes(record[0], key, reverse)):
                if record is None:
                    return
                (last, value), record = record, next(below, None)
            else:
                if record is not None and record[0] == key:
                    record = next(below, None)
                last, value, key = key, self._changes[key], next(keys, None)
            if value is not None:
                yield last, value

    def _ordered(self) -> SortedList:
        if self._unordered:
            self._order.update(self._unordered)
            self._unordered.clear()
        return self._order

    def _keys(
        self, start: bytes, end: bytes | None, last: bytes | None, reverse: bool
    ) -> Iterator[bytes]:
        """The changed keys of a range that come after `last`."""
        if last is not None and reverse:
            end = last
        low_included = last is None or reverse
        low = start if low_included else last
        if end is not None and low is not None and low >= end:
            return iter(())
        keys: Iterator[bytes] = self._ordered().irange(
            low, end, inclusive=(low_included, False), reverse=reverse
        )
        return keys


def _precedes(key: bytes, other: bytes, reverse: bool) -> bool:
    return key > other if reverse else key < other
