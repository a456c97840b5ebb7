"""How much memory a process has taken for itself.

The resident size of a replica also counts the pages of its files that are mapped: as many as there
are once all was read, and each of them the system may take back at any moment, as it may with its
cache of files. What the process itself has asked for, and keeps, is the rest.
"""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def private_bytes(process: int | str = "self") -> int | None:
    """Resident memory that is no page of a file; None if the process is gone, or not on Linux."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * _PAGE_BYTES
