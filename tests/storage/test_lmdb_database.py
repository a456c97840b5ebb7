import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pbft.storage.database import CorruptRecord, StorageFailure, reading, writing
from pbft.storage.directory_lock import DirectoryInUse
from pbft.storage.lmdb_database import MAX_SNAPSHOTS, LmdbDatabase

MIB = 1 << 20


def fill(database: LmdbDatabase, records: dict[bytes, bytes]) -> None:
    with writing(database) as transaction:
        for key, value in records.items():
            transaction.put("a", key, value)


def open_database(path: Path, map_bytes: int = 64 * MIB) -> LmdbDatabase:
    return LmdbDatabase(path, ("a", "b"), map_bytes)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every write beyond `size` bytes of a file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def overwrite(path: Path, old: bytes, new: bytes) -> None:
    data = path / "data.mdb"
    content = data.read_bytes()
    assert old in content
    data.write_bytes(content.replace(old, new))


def test_records_are_there_after_opening_again(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"k": b"v"})
    database.close()
    again = open_database(tmp_path / "e")
    with reading(again) as snapshot:
        assert snapshot.get("a", b"k") == b"v"
    again.close()


def test_a_database_is_crowded_once_it_has_had_half_of_its_bound(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e", 8 * MIB)
    fill(database, {b"%d" % number: bytes(1 << 16) for number in range(48)})
    assert not database.crowded
    assert database.size > 3 * MIB
    fill(database, {b"%d" % number: bytes(1 << 16) for number in range(48, 70)})
    assert database.crowded
    with writing(database) as transaction:
        for number in range(70):
            transaction.delete("a", b"%d" % number)
    assert database.crowded
    database.close()


def test_a_map_that_is_full_is_a_storage_failure_which_a_larger_one_ends(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e", MIB)
    fill(database, {b"k": b"v"})
    with pytest.raises(StorageFailure, match="reached its configured size: start with a larger"):
        fill(database, {b"%d" % number: bytes(1 << 16) for number in range(48)})
    database.close()
    again = open_database(tmp_path / "e", 8 * MIB)
    with reading(again) as snapshot:
        assert dict(snapshot.scan("a")) == {b"k": b"v"}
    fill(again, {b"%d" % number: bytes(1 << 16) for number in range(48)})
    again.close()


def test_the_map_is_sparse(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e", 64 << 30)
    assert (tmp_path / "e" / "data.mdb").stat().st_blocks * 512 < MIB
    database.close()


def test_a_directory_is_open_once_in_this_process(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    with pytest.raises(DirectoryInUse, match="is in use by process"):
        open_database(tmp_path / "e")
    database.close()
    open_database(tmp_path / "e").close()


HOLD = """
import sys
from pathlib import Path
from pbft.storage.lmdb_database import LmdbDatabase
database = LmdbDatabase(Path(sys.argv[1]), ("a", "b"), 1 << 20)
with_commit = database.begin()
with_commit.put("a", b"committed", b"v")
with_commit.commit()
database.begin().put("a", b"lost", b"v")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.rule("R40")
def test_another_process_keeps_it_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "e")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(DirectoryInUse, match=f"is in use by process {holder.pid}$"):
            open_database(tmp_path / "e")
        holder.kill()
        holder.wait()
    database = open_database(tmp_path / "e")
    with reading(database) as snapshot:
        assert dict(snapshot.scan("a")) == {b"committed": b"v"}
    database.close()


@pytest.mark.rule("R41")
def test_a_flipped_byte_in_a_value_names_table_and_key(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"good": b"value", b"key": b"a rather unlikely value"})
    database.close()
    overwrite(tmp_path / "e", b"a rather unlikely value", b"a rather unlikely valuf")
    database = open_database(tmp_path / "e")
    with reading(database) as snapshot:
        assert snapshot.get("a", b"good") == b"value"
        with pytest.raises(CorruptRecord, match="table 'a' under key 6b6579"):
            snapshot.get("a", b"key")
        with pytest.raises(CorruptRecord, match="table 'a' under key 6b6579"):
            list(snapshot.scan("a"))
        with pytest.raises(CorruptRecord, match="table 'a' under key 6b6579"):
            list(snapshot.scan("a", reverse=True))
    database.close()


@pytest.mark.rule("R41")
def test_a_value_under_another_key_is_corrupt(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"unlikely-key-1": b"value"})
    database.close()
    overwrite(tmp_path / "e", b"unlikely-key-1", b"unlikely-key-2")
    database = open_database(tmp_path / "e")
    with reading(database) as snapshot, pytest.raises(CorruptRecord):
        snapshot.get("a", b"unlikely-key-2")
    database.close()


@pytest.mark.rule("R41")
def test_a_value_in_another_table_is_corrupt(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"k": b"v"})
    sealed = database._tables["a"].seal(b"k", b"v")
    with pytest.raises(CorruptRecord, match="table 'b'"):
        database._tables["b"].unseal(b"k", sealed)
    assert database._tables["a"].unseal(b"k", sealed) == b"v"
    database.close()


@pytest.mark.rule("R41")
def test_a_file_that_was_cut_short_is_an_error_and_no_crash(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"%06d" % i: bytes(500) for i in range(2000)})
    database.close()
    with open(tmp_path / "e" / "data.mdb", "r+b") as data:
        data.truncate(32 * 4096)
    with pytest.raises(StorageFailure):
        read_everything(tmp_path / "e")


@pytest.mark.rule("R41")
def test_a_page_that_is_another_kind_of_page_is_an_error_of_storage(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"key": b"a rather unlikely value"})
    database.close()
    data = bytearray((tmp_path / "e" / "data.mdb").read_bytes())
    page = data.index(b"a rather unlikely value") // 4096 * 4096
    data[page + 10 : page + 12] = b"\0\0"  # says that it is neither leaf nor branch
    (tmp_path / "e" / "data.mdb").write_bytes(data)
    database = open_database(tmp_path / "e")
    for reverse in (False, True):
        with (
            reading(database) as snapshot,
            pytest.raises(StorageFailure, match="the file is damaged"),
        ):
            list(snapshot.scan("a", b"k", b"l", reverse=reverse))
    database.close()


def read_everything(path: Path) -> None:
    database = open_database(path)
    try:
        with reading(database) as snapshot:
            assert len(list(snapshot.scan("a"))) == 2000
    finally:
        database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "data.mdb").write_bytes(b"not a database" * 1000)
    for _ in range(2):
        with pytest.raises(StorageFailure, match="no LMDB database"):
            open_database(tmp_path / "e")


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"")
    with pytest.raises(StorageFailure, match="cannot open the database"):
        open_database(tmp_path / "e")


def test_a_full_map_is_a_clear_failure(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e", MIB)
    fill(database, {b"k": b"v"})
    with pytest.raises(StorageFailure, match="reached its configured size"):
        fill(database, {b"big": bytes(2 * MIB)})
    with reading(database) as snapshot:
        assert dict(snapshot.scan("a")) == {b"k": b"v"}
    database.close()


@pytest.mark.rule("R39")
def test_after_a_failed_commit_the_database_is_dead_and_the_old_state_on_disk(
    tmp_path: Path,
) -> None:
    database = open_database(tmp_path / "e")
    fill(database, {b"k": b"v"})
    transaction = database.begin()
    transaction.put("a", b"big", bytes(8 * MIB))
    with files_of_at_most(2 * MIB), pytest.raises(StorageFailure, match="failed: "):
        transaction.commit()
    transaction.abort()
    with pytest.raises(StorageFailure, match="a commit failed"):
        database.begin()
    with pytest.raises(StorageFailure, match="a commit failed"):
        database.snapshot()
    database.close()
    again = open_database(tmp_path / "e")
    with reading(again) as snapshot:
        assert dict(snapshot.scan("a")) == {b"k": b"v"}
    again.close()


def test_too_many_snapshots_are_refused(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    snapshots = [database.snapshot() for _ in range(MAX_SNAPSHOTS)]
    with pytest.raises(StorageFailure, match=f"more than {MAX_SNAPSHOTS} snapshots"):
        database.snapshot()
    snapshots.pop().close()
    snapshots.append(database.snapshot())
    database.close()


def test_a_write_transaction_ends_on_its_own_thread(tmp_path: Path) -> None:
    database = open_database(tmp_path / "e")
    transaction = database.begin()
    errors: list[str] = []

    def commit() -> None:
        try:
            transaction.commit()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=commit)
    thread.start()
    thread.join()
    assert errors == ["a write transaction must end on the thread that began it"]
    transaction.commit()
    database.close()
