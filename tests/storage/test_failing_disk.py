"""EIO and ENOSPC at every write and sync of a data directory's life, on real files."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failing_life import CLUSTER, REPLICA

from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import reading
from pbft.storage.state_store import StateStore

SUPPORT = Path(__file__).parent.parent / "support"

Live = Callable[[Path, int, int], tuple[str, str]]
"""Of a folder, until the FAIL_AT-th write or sync fails: what was done, and how it ended."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    source = SUPPORT / "failing_disk.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    command = [sys.executable, SUPPORT / "failing_life.py"]
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": str(SUPPORT.parent.parent),
    }
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, said = process.stdin, process.stdout
        assert asked is not None
        assert said is not None

        def once(data: Path, fail_at: int, error: int) -> tuple[str, str]:
            print(json.dumps([str(data), fail_at, error]), file=asked, flush=True)
            done, sentence = json.loads(said.readline())
            return done, sentence

        yield once


@pytest.mark.rule("R39")
@pytest.mark.rule("R47")
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("error", "sentence", "used_before"),
    [
        (errno.EIO, "the disk has failed (Input/output error): replace it", True),
        (errno.ENOSPC, "the disk is full: make room on it and start again", False),
    ],
)
def test_every_write_and_sync_that_fails_ends_with_one_sentence_and_loses_nothing(
    tmp_path: Path, live: Live, error: int, sentence: str, used_before: bool
) -> None:
    if used_before:
        assert live(tmp_path / "before", 1 << 30, error) == ("flushed 3", "")
    failed_at = 0
    while True:
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        if used_before:
            shutil.copytree(tmp_path / "before", data)
        done, ended = live(data, failed_at + 1, error)
        if not ended:
            break
        assert sentence in ended
        assert "\n" not in ended
        check(data, done, 3 if used_before else 0)
        failed_at += 1
    assert failed_at > 20


def check(data: Path, done: str, before: int) -> None:
    """All that was reported as done is there when the disk works again."""
    number = int(done.split()[1]) if " " in done else before
    flushed = number - 1 if done.startswith("voted") else number
    directory = open_data_directory(data, CLUSTER, REPLICA)
    assert directory.discarded == ""
    with reading(directory.log) as reader:
        votes = {int(key) for key, _ in reader.scan("slots")}
    assert votes >= set(range(1, number + 1))
    assert StateStore(directory.state).seq >= flushed
    directory.close()
