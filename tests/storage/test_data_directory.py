import os
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pbft.core.records import TABLES as RECORD_TABLES
from pbft.storage import data_directory
from pbft.storage.data_directory import (
    LOG_TABLES,
    DataDirectory,
    MissingData,
    open_data_directory,
)
from pbft.storage.database import CorruptRecord, StorageFailure, reading, writing
from pbft.storage.directory_lock import DirectoryInUse
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.store_identity import FORMAT, WrongDirectory, WrongFormat

CLUSTER = b"c" * 32


def open_it(path: Path, **changed: Any) -> DataDirectory:
    return open_data_directory(path, changed.get("cluster", CLUSTER), changed.get("replica", 2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with the data of replica 2, closed."""
    open_it(tmp_path / "data").close()
    return tmp_path / "data"


def overwrite_identity(path: Path, record: bytes) -> None:
    log = LmdbDatabase(path / "log", LOG_TABLES, 1 << 20)
    with writing(log) as transaction:
        transaction.put("meta", b"identity", record)
    log.close()


def test_a_first_start_makes_both_environments(tmp_path: Path) -> None:
    directory = open_it(tmp_path / "some" / "data")
    with writing(directory.log) as transaction:
        for table in LOG_TABLES:
            transaction.put(table, b"k", b"v")
    store = StateStore(directory.state)
    store.begin_batch(1, 10)
    store.flush()
    directory.close()
    directory.close()
    again = open_it(tmp_path / "some" / "data")
    with reading(again.log) as snapshot:
        assert [snapshot.get(table, b"k") for table in LOG_TABLES] == [b"v"] * len(LOG_TABLES)
    assert StateStore(again.state).seq == 1
    again.close()


@pytest.mark.rule("R41")
def test_a_directory_that_has_lost_its_log_is_refused(data: Path) -> None:
    shutil.rmtree(data / "log")
    with pytest.raises(
        MissingData, match=r"log has lost its data while .* start with an empty one"
    ):
        open_it(data)
    assert not (data / "log").exists()


@pytest.mark.rule("R41")
def test_a_log_that_was_emptied_is_refused(data: Path) -> None:
    (data / "log" / "data.mdb").write_bytes(b"")
    with pytest.raises(MissingData, match="log has been emptied"):
        open_it(data)


@pytest.mark.rule("R41")
def test_a_state_that_was_lost_or_emptied_is_begun_anew(data: Path) -> None:
    execute_one(data)
    shutil.rmtree(data / "state")
    directory = open_it(data)
    assert directory.discarded == f"{data}/state has lost its data"
    assert StateStore(directory.state).seq == 0
    directory.close()
    (data / "state" / "data.mdb").write_bytes(b"")
    directory = open_it(data)
    assert directory.discarded == f"{data}/state has been emptied"
    directory.close()
    directory = open_it(data)
    assert directory.discarded == ""
    directory.close()


def execute_one(data: Path) -> None:
    """Let the state go on by one."""
    directory = open_it(data)
    store = StateStore(directory.state)
    store.begin_batch(1, 10)
    store.application.put(b"key", b"value")
    store.flush()
    directory.close()


def test_the_data_of_another_replica_or_cluster_is_refused(data: Path) -> None:
    with pytest.raises(WrongDirectory, match="holds the data of replica 2, not of replica 1"):
        open_it(data, replica=1)
    with pytest.raises(WrongDirectory, match="holds the data of another cluster"):
        open_it(data, cluster=b"d" * 32)
    open_it(data).close()


@pytest.mark.parametrize("record", [[FORMAT + 1, {"new": 1}], [1, CLUSTER, 2], []])
def test_another_format_is_refused_whatever_else_it_says(data: Path, record: list[Any]) -> None:
    overwrite_identity(data, msgspec.msgpack.encode(record))
    with pytest.raises(WrongFormat, match=f"this version of pbft reads format {FORMAT}"):
        open_it(data)


@pytest.mark.parametrize("record", [b"", b"\xc1", b"\x07", bytes([0x92, FORMAT, 2])])
def test_an_identity_that_is_none_is_refused(data: Path, record: bytes) -> None:
    overwrite_identity(data, record)
    with pytest.raises(CorruptRecord, match="identity record is not readable"):
        open_it(data)


def test_a_directory_is_in_use_until_it_is_closed(data: Path) -> None:
    directory = open_it(data)
    with pytest.raises(DirectoryInUse, match=re.escape(f"{data} is in use by process")):
        open_it(data)
    directory.close()
    open_it(data).close()


def test_a_refused_directory_is_released(data: Path) -> None:
    with pytest.raises(WrongDirectory):
        open_it(data, replica=1)
    open_it(data).close()


@pytest.mark.rule("R40")
@pytest.mark.parametrize("survived", range(4))
def test_a_first_start_can_be_interrupted_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """The steps are: open the log, open the state, mark the log, mark the state."""
    steps = 0

    def counted(function: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > survived:
                raise StorageFailure("power cut")
            return function(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        for name in ("LmdbDatabase", "write_identity"):
            patch.setattr(data_directory, name, counted(getattr(data_directory, name)))
        with pytest.raises(StorageFailure, match="power cut"):
            open_it(tmp_path / "data")
    assert (tmp_path / "data" / "first-start").exists()
    open_it(tmp_path / "data").close()
    assert not (tmp_path / "data" / "first-start").exists()
    open_it(tmp_path / "data").close()


@pytest.mark.rule("R40")
@pytest.mark.parametrize("torn", ["log", "state"])
def test_what_a_power_cut_has_torn_in_a_first_start_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(data_directory, "_unmark", lambda _path: None)
        open_it(tmp_path / "data").close()
    (tmp_path / "data" / torn / "data.mdb").write_bytes(bytes(8192))
    directory = open_it(tmp_path / "data")
    assert directory.discarded == ""
    directory.close()
    open_it(tmp_path / "data").close()


@pytest.mark.rule("R40")
def test_a_first_start_makes_every_folder_above_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    data = tmp_path / "not" / "yet" / "there"
    open_it(data).close()
    assert {data, *list(data.parents)[:3], tmp_path.parent} <= set(synced)
    synced.clear()
    open_it(data).close()
    assert tmp_path not in synced


def test_a_path_that_cannot_be_a_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailure, match="cannot use the data directory"):
        open_it(tmp_path / "file" / "data")


def test_the_storage_and_the_core_mean_the_same_tables_of_the_log() -> None:
    """They may not know each other, and both must know them."""
    assert LOG_TABLES == RECORD_TABLES
