"""EIO and ENOSPC at every write and sync of a data directory's life, on real files."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import reading
from pbft.storage.state_store import StateStore

CLUSTER = b"c" * 32
SOURCE = Path(__file__).parent.parent / "support" / "failing_disk.c"

LIFE = """
import sys
from pathlib import Path
from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import StorageFailure, writing
from pbft.storage.directory_lock import UnusableDirectory
from pbft.storage.state_store import StateStore

done = ""
try:
    directory = open_data_directory(Path(sys.argv[1]), b"c" * 32, 2, fresh_ok=True)
    done = "opened"
    store = StateStore(directory.state)
    for seq in range(store.seq + 1, store.seq + 4):
        with writing(directory.log) as transaction:
            transaction.put("slots", b"%d" % seq, bytes(6000))
        done = f"voted {seq}"
        store.begin_batch(seq, seq)
        store.application.put(b"%d" % seq, b"value")
        store.flush()
        done = f"flushed {seq}"
except (StorageFailure, UnusableDirectory) as error:
    print(done)
    sys.exit(str(error))
finally:
    if done:
        directory.close()
print(done)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    return library


def live(data: Path, shim: Path, fail_at: int, error: int) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "FAIL_AT": str(fail_at),
        "FAIL_WITH": str(error),
    }
    command = [sys.executable, "-c", LIFE, str(data)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.rule("R39")
@pytest.mark.rule("R47")
@pytest.mark.parametrize(
    ("error", "sentence", "used_before"),
    [
        (errno.EIO, "the disk has failed (Input/output error): replace it", True),
        (errno.ENOSPC, "the disk is full: make room on it and start again", False),
    ],
)
def test_every_write_and_sync_that_fails_ends_with_one_sentence_and_loses_nothing(
    tmp_path: Path, shim: Path, error: int, sentence: str, used_before: bool
) -> None:
    if used_before:
        assert live(tmp_path / "before", shim, 1 << 30, error).stdout == "flushed 3\n"
    failed_at = 0
    while True:
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        if used_before:
            shutil.copytree(tmp_path / "before", data)
        ended = live(data, shim, failed_at + 1, error)
        if ended.returncode == 0:
            break
        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert sentence in ended.stderr
        check(data, ended.stdout.strip(), 3 if used_before else 0)
        failed_at += 1
    assert failed_at > 20


def check(data: Path, done: str, before: int) -> None:
    """All that was reported as done is there when the disk works again."""
    number = int(done.split()[1]) if " " in done else before
    flushed = number - 1 if done.startswith("voted") else number
    directory = open_data_directory(data, CLUSTER, 2, fresh_ok=True)
    assert directory.discarded == ""
    with reading(directory.log) as reader:
        votes = {int(key) for key, _ in reader.scan("slots")}
    assert votes >= set(range(1, number + 1))
    assert StateStore(directory.state).seq >= flushed
    directory.close()
