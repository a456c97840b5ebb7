"""What the operator is to do about the system's own complaints."""

import errno
import os
from pathlib import Path

FULL_BYTES = 1024**2

_ADVICE = {
    errno.ENOSPC: "the disk is full: make room on it and start again, nothing is lost",
    errno.EDQUOT: "the disk quota is used up: make room and start again",
    errno.EFBIG: "the file may not grow any more: raise its limit (`ulimit -f`) and start again",
    errno.EIO: "the disk has failed (Input/output error): replace it",
    errno.EROFS: "the disk can only be read: mount it for writing and start again",
}


def advice(error: Exception, place: Path) -> str:
    """What went wrong at `place` and, where that is known, what to do.

    Libraries have the system's complaint in their texts; LMDB calls it an input/output error when
    the last of the room took a part of what it wanted to write.
    """
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if os.strerror(errno.EIO) in text and _is_full(place):
        return _ADVICE[errno.ENOSPC]
    for code, sentence in _ADVICE.items():
        if os.strerror(code) in text:
            return sentence
    return text


def _is_full(place: Path) -> bool:
    try:
        disk = os.statvfs(place)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_BYTES
