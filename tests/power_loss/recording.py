"""Making a recording (the shim is compiled, and preloaded into the driver) and reading it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.power_loss.marks import HEADER, RECORD_TO, RECORD_UNDER

SOURCE = Path(__file__).with_name("recorder.c")
PLACE = Path("some", "data")
"""Where below the recorded folder the data directory is: no part of it exists at first."""


class Unrecordable(Exception):
    """This machine cannot make a recording; the text says why."""


class Call(NamedTuple):
    """One record. By kind:

    O  opened `payload` (a path) as `fd`; `number` has its flags, and CREATED
    C  closed `fd`
    W  wrote `payload` to `fd` at `number`
    T  cut or extended `fd` to `number` bytes
    S  synced `fd`, a file or a directory
    M  mapped `fd` so that memory writes reach the file
    D  made the directory `payload`
    U  removed the name `payload`
    K  a mark: see marks.py
    X  called `payload`, which the replay does not know
    """

    kind: str
    fd: int
    number: int
    payload: bytes


def calls(recording: Path) -> Iterator[Call]:
    """All records, in order."""
    raw = memoryview(recording.read_bytes())
    at = 0
    while at < len(raw):
        kind, fd, number, length = HEADER.unpack_from(raw, at)
        at += HEADER.size
        yield Call(chr(kind), fd, number, bytes(raw[at : at + length]))
        at += length


def compile_recorder(folder: Path) -> Path:
    """The shim as a library in `folder`. Raises Unrecordable."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unrecordable("there is no C compiler (cc or gcc) to build the recorder with")
    if not sys.platform.startswith("linux"):
        raise Unrecordable("the recorder is preloaded into a process of Linux, and this is none")
    library = folder / "recorder.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Unrecordable(f"the recorder does not compile here: {made.stderr}")
    return library


def record(library: Path, folder: Path, what: str, keys: Path, *options: str) -> Path:
    """Run the driver on `folder`/PLACE under the shim; returns the recording, beside `folder`."""
    recording = folder.with_suffix(".recording")
    recording.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.power_loss.driver", what, keys, folder / PLACE]
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        RECORD_TO: str(recording),
        RECORD_UNDER: str(folder),
    }
    subprocess.run([*command, *options], env=environment, check=True)
    return recording
