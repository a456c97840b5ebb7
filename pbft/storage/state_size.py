"""How large one map of the state is: a function of its content alone, whatever came before.

The flushed table's size is known from its tree. A change in memory adds what is new at once; what
it replaces is looked up only when the sum, which is too high until then, comes near to the bound
that somebody asks about. So far from it the hot path reads nothing, and the answer is always exact.
"""

from collections.abc import Callable

from pbft.storage.overlay import ABSENT, Change

ENTRY_BYTES = 256
"""What an entry counts beside its key and value: its place in the table and in the tree."""


def entry_bytes(key: bytes, value: bytes | None) -> int:
    """What the entry counts; nothing where there is none."""
    return 0 if value is None else ENTRY_BYTES + len(key) + len(value)


class StateSize:
    """The size of a changed table, in bytes; `load` reads the value below the changes."""

    def __init__(self, load: Callable[[bytes], bytes | None]) -> None:
        self._load = load
        self.rebase(0)

    def rebase(self, below: int) -> None:
        """Start over, without changes, above a table of `below` bytes."""
        self.most = below
        self._replaced: dict[bytes, int] = {}  # of changed and other keys, once looked up
        self._unknown: dict[bytes, None] = {}  # changed keys that were not looked up

    def changed(self, key: bytes, before: Change, after: Change) -> None:
        """Follow one change of `key` (ABSENT: it was, or is again, as in the table below)."""
        if isinstance(after, bytes):
            self.most += ENTRY_BYTES + len(key) + len(after)
        elif after is ABSENT:
            self._restore(key)
        if isinstance(before, bytes):
            self.most -= ENTRY_BYTES + len(key) + len(before)
        elif before is ABSENT:
            if key in self._replaced:
                self.most -= self._replaced[key]
            else:
                self._unknown[key] = None

    def _restore(self, key: bytes) -> None:
        if key in self._unknown:
            del self._unknown[key]
        else:
            self.most += self._replaced[key]

    def exact(self) -> int:
        """The size, in bytes. Raises StorageFailure."""
        while self._unknown:
            key = next(iter(self._unknown))
            self._replaced[key] = entry_bytes(key, self._load(key))
            del self._unknown[key]
            self.most -= self._replaced[key]
        return self.most

    def exceeds(self, bound: int) -> bool:
        """Whether the size is above `bound`. Raises StorageFailure."""
        return self.most > bound and self.exact() > bound
