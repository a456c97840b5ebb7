"""Runs `pbft` in a process that ends with the one that started it, however that ends.

Without it the replicas of a command that was killed would go on, and a stopped one could not even
be told. Linux only; elsewhere a command that is killed leaves its replicas behind.
"""

import ctypes
import os
import signal
import sys

from pbft.cli.main import main

PR_SET_PDEATHSIG = 1  # prctl(2)


def follow(parent: int) -> bool:
    """Be killed when the process `parent` ends; False if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


if __name__ == "__main__" and follow(int(sys.argv.pop(1))):
    main(prog_name="pbft")
