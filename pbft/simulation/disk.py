"""A disk whose power can fail between any two steps of a turn.

Steps are commits (before and after), packets (each receiver apart) and executions (before and
after): whatever a real process can be killed between. What was committed before is there at the
next start, everything else is lost.
"""

from collections.abc import Sequence

from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.overlay import Overlay


class PowerCut(BaseException):
    """The machine is off. Not an Exception: nothing in a node may catch it."""


class Fuse:
    """Blows after a number of steps, once it is lit."""

    def __init__(self) -> None:
        self._left: int | None = None

    def light(self, steps: int | None) -> None:
        """Raise PowerCut at the `steps`-th step from now; None: never."""
        self._left = steps

    def step(self) -> None:
        """One more step. Raises PowerCut."""
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise PowerCut


class Disk(MemoryDatabase):
    """Committed transactions survive a power cut."""

    def __init__(self, tables: Sequence[str], fuse: Fuse) -> None:
        super().__init__(tables)
        self._fuse = fuse

    def copy(self) -> "Disk":
        """A disk with the same committed content."""
        image = Disk(tuple(self._tables), self._fuse)
        image._tables = {name: table.copy() for name, table in self._tables.items()}
        return image

    def apply(self, writes: dict[str, Overlay]) -> None:
        self._fuse.step()
        super().apply(writes)
        self._fuse.step()
