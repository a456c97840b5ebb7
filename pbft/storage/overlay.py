"""Changes in memory on top of an ordered table that stays as it is.

A range over both is live: each step yields the smallest key above the last one that is there *now*.
So what a caller sees while it writes into the range that it walks depends on the map's content
alone, never on which part of it happens to be on disk. Replicas flush at different moments, and
must not differ by it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sortedcontainers import SortedDict

Scan = Callable[[bytes, bytes | None, bool], Iterator[tuple[bytes, bytes]]]


class Absent:
    """The type of ABSENT."""


ABSENT: Final = Absent()
Change = bytes | None | Absent
"""A new value, None for a deleted key, or ABSENT for one that was not touched."""


class Overlay:
    """An ordered map from keys to their changes: a new value, or None for a deletion."""

    def __init__(self) -> None:
        self._changes = SortedDict()
        self._shape = 0  # counts the moments at which the set of keys changed

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """All of them, in order of their keys."""
        changes: Mapping[bytes, bytes | None] = self._changes
        return changes

    def get(self, key: bytes) -> Change:
        """The change to `key`, or ABSENT."""
        change: Change = self._changes.get(key, ABSENT)
        return change

    def set(self, key: bytes, change: Change) -> Change:
        """Record a change, or with ABSENT drop it; returns the one before."""
        before = self.get(key)
        if isinstance(change, Absent):
            self._changes.pop(key, None)
            self._shape += 1
        else:
            self._changes[key] = change
            self._shape += before is ABSENT
        return before

    def clear(self) -> None:
        """Drop all changes."""
        self._changes.clear()
        self._shape += 1

    def range(
        self, scan: Scan, start: bytes, end: bytes | None, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The entries of a range of the changed table. `scan` reads the table below."""
        below = scan(start, end, reverse)
        record = next(below, None)
        last: bytes | None = None
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
        keys: Iterator[bytes] = self._changes.irange(
            low, end, inclusive=(low_included, False), reverse=reverse
        )
        return keys


def _precedes(key: bytes, other: bytes, reverse: bool) -> bool:
    return key > other if reverse else key < other
