"""A disk as POSIX promises it and not a bit better: what is not synced may be there or not.

Between two syncs of a file each of its written pages may have reached the disk or not, in any
order, or in part (by sectors of 512 bytes), and its new size without the bytes. A write to a file
opened with O_DSYNC is durable when it returns, with the sectors that it lies in and nothing else.
A name is durable once its directory was synced, whatever was synced of the file itself.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.power_loss.recording import Call

CREATED = 1 << 40
PAGE, SECTOR = 4096, 512
NEVER_SYNCED = ("in-use.lock", "lock.mdb")
"""Files whose content means nothing after a power cut; they may hold anything then."""

Image = dict[str, bytes | None]
"""What is on a disk: contents by path, None for a directory."""
Choice = Sequence[int]
"""For each pending change a bit mask of its sectors that reached the disk; 0 for a lost change."""
WHOLE = -1


class Change(NamedTuple):
    """Something that was done to an inode and is not yet durable.

    `data` is written at `at`; without it the size becomes `at`, or at least `at` if it `grows`; in
    a directory `name` becomes `inode` (None: it is removed).
    """

    of: int
    at: int = 0
    data: bytes = b""
    grows: bool = False
    name: str = ""
    inode: int | None = None

    @property
    def sectors(self) -> int:
        """How many sectors it lies in; a change of names or sizes has one."""
        if not self.data:
            return 1
        return (self.at + len(self.data) - 1) // SECTOR - self.at // SECTOR + 1


Directory = dict[str, int]


class State:
    """Inodes by number: contents of files, names in directories. Number 0 is the root."""

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}
        self.directories: dict[int, Directory] = {0: {}}

    def copy(self, changed: set[int]) -> "State":
        """A state of its own for these inodes, sharing the others."""
        other = State()
        other.files = self.files | {i: bytearray(self.files[i]) for i in changed & set(self.files)}
        other.directories = self.directories | {
            i: dict(self.directories[i]) for i in changed & set(self.directories)
        }
        return other

    def apply(self, change: Change, mask: int = WHOLE) -> None:
        """Let those sectors of `change` be on the disk."""
        if mask == 0:
            return
        if change.name:
            self._rename(change)
            return
        file = self.files[change.of]
        if not change.data:
            size = max(len(file), change.at) if change.grows else change.at
            _resize(file, size)
            return
        for number in range(change.sectors):
            if mask >> number & 1:
                self._write_sector(file, change, number)

    def _rename(self, change: Change) -> None:
        names = self.directories[change.of]
        if change.inode is None:
            names.pop(change.name, None)
        else:
            names[change.name] = change.inode

    def _write_sector(self, file: bytearray, change: Change, number: int) -> None:
        start = max(change.at, (change.at // SECTOR + number) * SECTOR)
        end = min(change.at + len(change.data), (change.at // SECTOR + number + 1) * SECTOR)
        if len(file) < end:
            _resize(file, end)
        file[start:end] = change.data[start - change.at : end - change.at]

    def image(self) -> Image:
        """What can be reached from the root."""
        found: Image = {}
        waiting = [("", 0)]
        while waiting:
            path, number = waiting.pop()
            for name, inode in sorted(self.directories[number].items()):
                if inode in self.directories:
                    found[path + name] = None
                    waiting.append((f"{path}{name}/", inode))
                else:
                    found[path + name] = bytes(self.files[inode])
        return found


class Disk:
    """Follows recorded calls below `root`: `seen` by the process, `durable`, `pending` between."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.seen, self.durable = State(), State()
        self.pending: list[Change] = []
        self._inodes = 1
        self._open: dict[int, tuple[int, int, str]] = {}  # fd -> inode, flags, name

    def load(self, image: Image) -> None:
        """Begin with this on the disk."""
        for path, content in sorted(image.items()):
            inode = self._new(content)
            directory, _, name = path.rpartition("/")
            for state in (self.seen, self.durable):
                parent = self._find(state, directory)
                state.directories[parent][name] = inode

    def _new(self, content: bytes | None) -> int:
        inode, self._inodes = self._inodes, self._inodes + 1
        for state in (self.seen, self.durable):
            if content is None:
                state.directories[inode] = {}
            else:
                state.files[inode] = bytearray(content)
        return inode

    def _find(self, state: State, path: str) -> int:
        inode = 0
        for part in filter(None, path.split("/")):
            inode = state.directories[inode][part]
        return inode

    def _parent(self, path: bytes) -> tuple[int, str]:
        directory, _, name = self._below(path).rpartition("/")
        return self._find(self.seen, directory), name

    def _below(self, path: bytes) -> str:
        return path.decode().removeprefix(self._root).strip("/")

    # --- what a call does --------------------------------------------------------------------

    def begin(self, call: Call) -> bool:
        """Make the changes of `call` pending; returns whether it makes something durable."""
        if call.kind == "X":
            raise AssertionError(f"the replay knows nothing of {call.payload.decode()}")
        if call.kind == "O":
            self._opened(call)
        elif call.kind == "C":
            del self._open[call.fd]
        elif call.kind == "D":
            self._named(call.payload, self._new(None))
        elif call.kind == "U":
            self._named(call.payload, None)
        elif call.kind in ("W", "T", "M"):
            self._changed(call)
        return call.kind == "S" or (call.kind == "W" and self._is_synchronous(call.fd))

    def finish(self, call: Call) -> None:
        """What `call` has made durable, is."""
        inode = self._open[call.fd][0]
        if call.kind == "S":
            self._settle(lambda change: change.of == inode)
        else:
            first, last = _sectors(call.number, len(call.payload))
            self._settle(lambda change: change.of == inode and _touches(change, first, last))

    def syncs_file(self, call: Call) -> bool:
        """Whether `call` is an fsync or fdatasync of a file."""
        return call.kind == "S" and self._open[call.fd][0] in self.seen.files

    def _settle(self, is_durable: Callable[[Change], bool]) -> None:
        for change in self.pending:
            if is_durable(change):
                self.durable.apply(change)
        self.pending = [change for change in self.pending if not is_durable(change)]

    def _is_synchronous(self, fd: int) -> bool:
        return bool(self._open[fd][1] & os.O_DSYNC)

    def _opened(self, call: Call) -> None:
        flags = call.number & (CREATED - 1)
        if call.number & CREATED:
            self._named(call.payload, self._new(b""))
        path = self._below(call.payload)
        inode = self._find(self.seen, path)
        self._open[call.fd] = inode, flags, path.rpartition("/")[2]
        if flags & os.O_TRUNC and self.seen.files[inode]:
            self._add(Change(inode, 0))

    def _named(self, path: bytes, inode: int | None) -> None:
        parent, name = self._parent(path)
        self._add(Change(parent, name=name, inode=inode))

    def _changed(self, call: Call) -> None:
        inode, _, name = self._open[call.fd]
        if name in NEVER_SYNCED:
            return
        if call.kind == "M":
            raise AssertionError(f"{name} is written to through memory")
        size = len(self.seen.files[inode])
        if call.kind == "T":
            if call.number != size:
                self._add(Change(inode, call.number))
            return
        end = call.number + len(call.payload)
        if end > size:
            self._add(Change(inode, end, grows=True))
        for change in _pages(inode, call.number, call.payload):
            self._add(change)

    def _add(self, change: Change) -> None:
        self.seen.apply(change)
        self.pending.append(change)

    # --- what may be left of it --------------------------------------------------------------

    def after_power_loss(self, choice: Choice) -> Image:
        """What is on the disk if of each pending change only the chosen sectors got there."""
        kept = [(c, mask) for c, mask in zip(self.pending, choice, strict=True) if mask]
        state = self.durable.copy({change.of for change, _ in kept})
        for change, mask in kept:
            state.apply(change, mask)
        return state.image()


def _resize(file: bytearray, size: int) -> None:
    if len(file) > size:
        del file[size:]
    else:
        file.extend(bytes(size - len(file)))


def _pages(inode: int, at: int, data: bytes) -> Iterable[Change]:
    """A write, page by page: that is how it goes to the disk."""
    start = 0
    while start < len(data):
        end = min(len(data), start + PAGE - (at + start) % PAGE)
        yield Change(inode, at + start, data[start:end])
        start = end


def _sectors(at: int, length: int) -> tuple[int, int]:
    return at // SECTOR, (at + length - 1) // SECTOR


def _touches(change: Change, first: int, last: int) -> bool:
    """Whether a pending change goes to the disk along with a write to these sectors."""
    if not change.data:
        return change.grows and change.at <= (last + 1) * SECTOR
    begin, end = _sectors(change.at, len(change.data))
    return begin <= last and first <= end
