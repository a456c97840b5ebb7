"""One process at a time in a directory.

The kernel drops a `flock` when its process ends, however it ends, so no stale lock is ever left.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

LOCK_NAME = "in-use.lock"


class UnusableDirectory(Exception):
    """A data directory is refused; the text is one sentence for the operator."""


class DirectoryInUse(UnusableDirectory):
    """Another process (or another part of this one) has opened the directory."""


def check_not_in_use(directory: Path) -> None:
    """Raises DirectoryInUse, OSError. Writes nothing, and keeps nobody out."""
    try:
        handle = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(directory, handle) from None
    finally:
        os.close(handle)


def _in_use(directory: Path, handle: int) -> DirectoryInUse:
    holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    return DirectoryInUse(f"{directory} is in use by process {holder or '?'}")


class DirectoryLock:
    """Held from construction until `release`. Raises DirectoryInUse, OSError."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            in_use = _in_use(directory, self._file)
            self.release()
            raise in_use from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others in. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def sync_directory(directory: Path) -> None:
    """Make the names inside `directory` durable, as an fsync of the files themselves does not."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_parents(directory: Path) -> None:
    """Make the way to `directory` durable, from the root of its file system down to its own name.

    A folder that may not be read is passed over: no program has made it for this account.
    """
    place = directory.resolve()
    while not place.is_mount():
        place = place.parent
        with suppress(PermissionError):
            sync_directory(place)
