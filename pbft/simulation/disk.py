"""A disk whose power can fail between any two steps of a turn.

Each step has a number and a kind: commits (lost, or kept though not acknowledged), packets (each
receiver apart) and executions (before and after): whatever a real process can be killed between.
What was committed before is there at the next start, everything else is lost.
"""

from collections.abc import Sequence

from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.overlay import Overlay


class PowerCut(BaseException):
    """The machine is off. Not an Exception: nothing in a node may catch it."""


class Fuse:
    """Counts steps, by kind; blows after a number of them, once it is lit."""

    def __init__(self) -> None:
        self.passed: list[str] = []  # the kind of every step so far; the n-th is point n
        self._left: int | None = None

    def light(self, steps: int | None) -> None:
        """Raise PowerCut at the `steps`-th step from now; None: never."""
        self._left = steps

    def step(self, kind: str) -> None:
        """One more step. Raises PowerCut."""
        self.passed.append(kind)
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise PowerCut


class Disk(MemoryDatabase):
    """Committed transactions survive a power cut. `purpose` names what is committed now."""

    def __init__(self, tables: Sequence[str], fuse: Fuse, purpose: str) -> None:
        super().__init__(tables)
        self._fuse = fuse
        self.purpose = purpose

    def copy(self) -> "Disk":
        """A disk with the same committed content."""
        image = Disk(tuple(self._tables), self._fuse, self.purpose)
        image._tables = {name: table.copy() for name, table in self._tables.items()}
        return image

    def apply(self, writes: dict[str, Overlay]) -> None:
        self._fuse.step(f"{self.purpose}, lost")
        super().apply(writes)
        self._fuse.step(f"{self.purpose}, kept")
