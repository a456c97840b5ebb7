"""What the operator is to do about the system's own complaints."""

import errno
import os

_ADVICE = {
    errno.ENOSPC: "the disk is full: make room on it and start again",
    errno.EDQUOT: "the disk quota is used up: make room and start again",
    errno.EFBIG: "the file may not grow any more: raise its limit (`ulimit -f`) and start again",
    errno.EIO: "the disk has failed (Input/output error): replace it",
    errno.EROFS: "the disk can only be read: mount it for writing and start again",
}


def advice(error: Exception) -> str:
    """What went wrong and, where that is known, what to do; libraries have it in their texts."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    for code, sentence in _ADVICE.items():
        if os.strerror(code) in text:
            return sentence
    return text
