"""The checksums of the files that a clean stop leaves behind.

At the next start a file that has the same checksums is what was left: there is nothing to examine.
In all other cases (the process was killed, the machine has lost its power, the disk has altered
something) it is examined as a whole. The note is taken away before anything is opened.
"""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from pbft.storage.directory_lock import sync_directory
from pbft.storage.store_identity import FORMAT

NOTE_NAME = "clean-stop"
MAX_BYTES = 4 * 1024**3
"""Above this it would hold up the stop for too long: then nothing is noted."""

_CHUNK_BYTES = 1024**2

Checksums = list[int]
"""Of each chunk of a file."""


class Note(Struct):
    """What is noted."""

    format: int
    checksums: dict[str, Checksums]


def leave_note(directory: Path, files: Mapping[str, Path]) -> None:
    """Note that these files, closed now, are whole. Raises OSError.

    A note that the power tears says nothing, or names checksums that no file has.
    """
    if sum(file.stat().st_size for file in files.values()) > MAX_BYTES:
        return
    checksums = {name: _checksums(file) for name, file in files.items()}
    note = msgspec.json.encode(Note(FORMAT, checksums))
    with (directory / NOTE_NAME).open("wb") as handle:
        handle.write(note)
        handle.flush()
        os.fsync(handle.fileno())
    sync_directory(directory)


def take_note(directory: Path, files: Mapping[str, Path]) -> frozenset[str]:
    """The names of the files that are as a clean stop has left them. Raises OSError."""
    noted = _read(directory / NOTE_NAME)
    whole = frozenset(
        name
        for name, file in files.items()
        if name in noted and file.exists() and _checksums(file) == noted[name]
    )
    if (directory / NOTE_NAME).exists():
        (directory / NOTE_NAME).unlink()
        sync_directory(directory)
    return whole


def _read(path: Path) -> dict[str, Checksums]:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return note.checksums if note.format == FORMAT else {}


def _checksums(file: Path) -> Checksums:
    with file.open("rb") as handle:
        return [zlib.crc32(chunk) for chunk in iter(lambda: handle.read(_CHUNK_BYTES), b"")]
