"""A data directory on a bad disk: what is damaged is refused or begun anew, nothing is wrong."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from bad_disk import (
    CLUSTER,
    PAGE,
    Content,
    a_byte,
    a_page,
    a_page_in_another_place,
    a_page_of_noise,
    content,
    open_it,
    the_end,
)

from pbft.storage import examine as examining, inspection
from pbft.storage.clean_stop import NOTE_NAME
from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import StorageFailure, reading, writing
from pbft.storage.directory_lock import UnusableDirectory
from pbft.storage.examine import LOG_TABLES, Examination, examine
from pbft.storage.inspection import DamagedLog, MissingData, TooLarge
from pbft.storage.seal import Seal
from pbft.storage.state_store import StateStore
from pbft.storage.store_identity import FORMAT, WrongDirectory, WrongFormat

IMAGES = 60


# --- spoiling -------------------------------------------------------------------------------------


@pytest.mark.rule("R41")
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", ["log", "state"])
@pytest.mark.parametrize(
    "spoil", [a_byte, a_page, a_page_of_noise, a_page_in_another_place, the_end]
)
def test_whatever_a_disk_does_nothing_wrong_is_ever_read(
    original: tuple[Path, Content],
    tmp_path: Path,
    name: str,
    spoil: Callable[[bytearray, Random], None],
) -> None:
    """Half of the images are as a killed process leaves them, half as after a clean stop."""
    path, chance = tmp_path / "data", Random(f"{name} {spoil.__name__}")
    endings = {"good": 0, "refused": 0, "begun anew": 0}
    for number in range(IMAGES // 5 if spoil is not a_byte else IMAGES):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original[0], path)
        if number % 2:
            (path / NOTE_NAME).unlink()
        file = path / name / "data.mdb"
        image = bytearray(file.read_bytes())
        spoil(image, chance)
        file.write_bytes(image)
        endings[ending(path, name, original[1])] += 1
    assert endings["refused" if name == "log" else "begun anew"] > 0
    assert endings["begun anew" if name == "log" else "refused"] == 0


def ending(path: Path, name: str, wanted: Content) -> str:
    """How a start ends; it is an error unless all that it reads is right."""
    try:
        directory = open_it(path)
    except UnusableDirectory as error:
        return "refused" if "start with an empty one" in str(error) else str(error)
    found = content(directory)
    for database in (directory.log, directory.state):
        with writing(database) as transaction:  # free pages are used: none of them may be in use
            for number in range(50):
                transaction.put("meta", b"new %d" % number, bytes(3000))
    if directory.discarded:
        assert StateStore(directory.state).seq == 0
        assert (path / "state.damaged" / "data.mdb").exists() or "emptied" in directory.discarded
        wanted = {at: value for at, value in wanted.items() if at[0] in LOG_TABLES[1:]}
        found = {at: value for at, value in found.items() if at[0] in LOG_TABLES[1:]}
    assert found == wanted
    kept = {at: value for at, value in content(directory).items() if at[0] != "meta"}
    assert kept.items() >= {at: v for at, v in wanted.items() if at[0] != "meta"}.items()
    directory.close()
    return "begun anew" if directory.discarded else "good"


# --- one by one -----------------------------------------------------------------------------------


def flip(file: Path, at: int) -> None:
    image = bytearray(file.read_bytes())
    image[at] ^= 1
    file.write_bytes(image)


@pytest.mark.rule("R41")
def test_a_damaged_log_is_refused_and_left_as_it_is(data: Path) -> None:
    flip(data / "log" / "data.mdb", 16)
    before = (data / "log" / "data.mdb").read_bytes()
    for _ in range(2):
        with pytest.raises(
            DamagedLog, match=r"log: the file is damaged .* start with an empty one"
        ):
            open_it(data)
    assert (data / "log" / "data.mdb").read_bytes() == before


@pytest.mark.rule("R41")
def test_a_damaged_state_is_set_aside_and_begun_anew_once(data: Path) -> None:
    flip(data / "state" / "data.mdb", 16)
    before = (data / "state" / "data.mdb").read_bytes()
    directory = open_it(data)
    assert directory.discarded.startswith(f"{data}/state: the file is damaged (its page 0 is")
    assert (data / "state.damaged" / "data.mdb").read_bytes() == before
    directory.close()
    directory = open_it(data)
    assert directory.discarded == ""
    directory.close()


@pytest.mark.rule("R41")
def test_a_flip_that_makes_the_last_commit_but_one_the_last_is_seen(data: Path) -> None:
    """LMDB would take it without a word: the last votes would be forgotten."""
    file = data / "log" / "data.mdb"
    image = bytearray(file.read_bytes())
    commits = [int.from_bytes(image[at + 144 : at + 152], "little") for at in (0, PAGE)]
    older, newest = sorted((0, PAGE), key=lambda at: commits[at // PAGE])
    for raised in (max(commits) + 1, max(commits) + 2):
        image[older + 144 : older + 152] = raised.to_bytes(8, "little")
        file.write_bytes(image)
        assert examine("log", file).damage == "its root is not the one of its last commit"
        with pytest.raises(DamagedLog, match="not the one of its last commit"):
            open_it(data)
    assert older != newest


@pytest.mark.rule("R41")
def test_a_record_whose_key_no_longer_leads_to_it_is_seen(data: Path) -> None:
    """Reading it by its right key would find nothing, which is no error for a map."""
    file = data / "state" / "data.mdb"
    directory = open_it(data)
    with reading(directory.state) as reader:
        key, value = next(reader.scan("application", b"key 2"))
    directory.close()
    stored, image = Seal("application").seal(key, value)[:8], file.read_bytes()
    assert key + stored in image
    file.write_bytes(image.replace(key + stored, key[:-1] + b"x" + stored))
    assert "damaged" in discarded(data)


def discarded(data: Path) -> str:
    directory = open_it(data)
    directory.close()
    return directory.discarded


@pytest.mark.rule("R41")
def test_a_tree_that_is_not_that_of_its_table_is_seen(data: Path) -> None:
    """Each record is whole, but one is of another day."""
    directory = open_it(data)
    with writing(directory.state) as transaction:
        key, _ = next(transaction.scan("application"))
        transaction.put("application", key, b"of another day")
    directory.close()
    (data / NOTE_NAME).unlink()
    assert "'application' and its tree do not hold the same" in discarded(data)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("table", ["application.nodes", "sessions.nodes"])
def test_a_tree_that_has_lost_a_node_is_seen(data: Path, table: str) -> None:
    directory = open_it(data)
    with writing(directory.state) as transaction:
        *_, (path, _) = transaction.scan(table)
        transaction.delete(table, path)
    directory.close()
    (data / NOTE_NAME).unlink()
    assert f"the state's tree has lost its node {path.hex()}" in discarded(data)


@pytest.mark.rule("R41")
def test_trees_that_are_not_those_of_the_summary_are_seen(data: Path) -> None:
    directory = open_it(data)
    store = StateStore(directory.state)
    with writing(directory.state) as transaction:
        summary = msgspec.structs.replace(store.summary(), sessions_root=b"r" * 32)
        transaction.put("meta", b"state", msgspec.msgpack.encode(summary))
    directory.close()
    (data / NOTE_NAME).unlink()
    assert "trees are not those of its summary" in discarded(data)


def test_the_state_of_another_replica_is_refused_and_not_discarded(
    data: Path, tmp_path: Path
) -> None:
    other = open_data_directory(tmp_path / "other", CLUSTER, 1)
    other.close()
    shutil.rmtree(data / "state")
    shutil.copytree(tmp_path / "other" / "state", data / "state")
    with pytest.raises(WrongDirectory, match="state holds the data of replica 1"):
        open_it(data)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(1, "run the version that wrote it"), (FORMAT + 1, "install the newer version that wrote it")],
)
def test_another_format_is_refused_with_what_to_do_and_left_as_it_is(
    data: Path, number: int, advice: str
) -> None:
    directory = open_it(data)
    with writing(directory.log) as transaction:
        transaction.put("meta", b"identity", msgspec.msgpack.encode([number, "whatever"]))
    directory.close()
    (data / NOTE_NAME).unlink()
    before = (data / "log" / "data.mdb").read_bytes()
    with pytest.raises(WrongFormat, match=f"format {number}; .* reads format {FORMAT}: {advice}"):
        open_it(data)
    assert (data / "log" / "data.mdb").read_bytes() == before


def test_a_file_that_has_outgrown_its_map_is_refused(data: Path) -> None:
    size = (data / "state" / "data.mdb").stat().st_size
    with pytest.raises(TooLarge, match=rf"state/data.mdb has {size} bytes, more than the 65536 "):
        open_it(data, state_map_bytes=65536)
    open_it(data).close()


# --- when it is examined, and by whom -------------------------------------------------------------


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which kinds of files were examined."""
    kinds: list[str] = []

    class Counted(Examination):
        def __init__(self, kind: str, file: Path) -> None:
            kinds.append(kind)
            super().__init__(kind, file)

    monkeypatch.setattr(inspection, "Examination", Counted)
    return kinds


def test_files_that_a_clean_stop_left_are_not_examined_and_others_are(
    data: Path, examined: list[str]
) -> None:
    open_it(data).close()
    assert examined == []
    directory = open_it(data)
    assert not (data / NOTE_NAME).exists()
    directory.log.healthy = False  # as after a failed commit
    directory.close()
    open_it(data).close()
    assert examined == ["log", "state"]
    with (data / "state" / "data.mdb").open("ab") as file:
        file.write(b"more")
    open_it(data).close()
    assert examined == ["log", "state", "state"]


def test_a_note_that_cannot_be_read_is_none(data: Path, examined: list[str]) -> None:
    (data / NOTE_NAME).write_bytes(b"{}")
    open_it(data).close()
    assert examined == ["log", "state"]


@pytest.mark.rule("R41")
@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "damage"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "damage"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "failure"),
        ("raise SystemExit('no module')", "failure"),
    ],
)
def test_an_examination_that_crashes_has_found_damage_and_one_that_fails_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, ends: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{examining.sys.executable}\n{code}\n")
    program.chmod(0o700)
    monkeypatch.setattr(examining.sys, "executable", str(program))
    examination = Examination("state", data / "state" / "data.mdb")
    if ends == "damage":
        assert "reading it crashes a process" in examination.findings().damage
    else:
        with pytest.raises(StorageFailure, match=r"data.mdb could not be examined"):
            examination.findings()


def test_a_file_that_cannot_be_read_is_damage(data: Path) -> None:
    assert examine("log", data).damage == "it cannot be read: Is a directory"


def test_a_first_start_that_was_torn_is_begun_again(data: Path) -> None:
    (data / "first-start").touch()
    flip(data / "log" / "data.mdb", 16)
    directory = open_it(data)
    with reading(directory.log) as snapshot:
        assert [key for key, _ in snapshot.scan("meta")] == [b"identity"]
    directory.close()


def test_what_was_set_aside_makes_room_for_the_next(data: Path) -> None:
    for _ in range(2):
        flip(data / "state" / "data.mdb", 16)
        assert discarded(data)
    assert sorted(path.name for path in data.glob("state*")) == ["state", "state.damaged"]


def test_missing_logs_are_not_made_up_for_by_a_state(data: Path) -> None:
    shutil.rmtree(data / "log")
    with pytest.raises(MissingData):
        open_it(data)
