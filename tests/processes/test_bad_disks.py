"""Real replicas on disks that lose, alter or refuse what is written to them (R41)."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from bad_disk import a_byte, a_page, a_page_of_noise, the_end

from client.kv import KV
from pbft.cli.soak_load import LEDGER
from tests.processes.conftest import SHORT_WINDOW, MakeCluster, finish, start
from tests.processes.load import Load
from tests.processes.running import (
    COMMAND,
    Cluster,
    agree,
    executed,
    foremost,
    pbft,
    ready,
    until,
    voting,
    written,
)

PAGE = 4096
VICTIM = 2
Spoil = Callable[[bytearray, Random], None]


async def load_up(cluster: Cluster, writes: int) -> None:
    async with cluster.clients(2) as clients:
        load = Load(clients)
        async with load.running():
            await load.more(writes)


async def agreed(cluster: Cluster) -> None:
    """Everybody gets to one state that a checkpoint covers."""
    async with cluster.client() as client:
        found = await until(client, cluster.replicas, voting)
        await until(client, cluster.replicas, executed(foremost(found)))
        for number in range(cluster.config.parameters.checkpoint_interval + 1):
            await KV(client).put(b"settle", b"%d" % number)
        await until(client, cluster.replicas, agree)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of which everybody was killed in the middle of its work."""
    cluster = start(tmp_path_factory.mktemp("killed"), 4, SHORT_WINDOW)
    with pytest.raises(Killed):
        asyncio.run(kill_in_the_middle(cluster))
    yield cluster
    finish(cluster)


class Killed(Exception):
    """What is in flight has nobody to wait for."""


async def kill_in_the_middle(cluster: Cluster) -> None:
    async with cluster.clients(2) as clients:
        load = Load(clients)
        async with load.running():
            await load.more(100)
            cluster.kill(cluster.replicas)
            raise Killed


@pytest.mark.rule("R41")
@pytest.mark.parametrize("name", ["log", "state"])
@pytest.mark.parametrize("spoil", [a_byte, a_page, a_page_of_noise, the_end])
def test_a_node_on_a_bad_file_starts_or_says_in_one_sentence_why_not(
    killed: Cluster, tmp_path: Path, name: str, spoil: Spoil
) -> None:
    """Whether what it then has is right is for tests/storage/test_bad_files.py, on many images."""
    data, chance = tmp_path / "data", Random(f"{name} {spoil.__name__}")
    shutil.copytree(killed.data / f"replica-{VICTIM}", data)
    file = data / name / "data.mdb"
    image = bytearray(file.read_bytes())
    spoil(image, chance)
    file.write_bytes(image)
    said, code = run_node(killed, data)
    if code == 1:
        assert name == "log"
        assert said.startswith("pbft: ")
        assert "start with an empty one" in said
        assert said.count("\n") == 1
    else:
        assert code == 0, said
        assert "replica-stopped" in said.splitlines()[-1]


def run_node(cluster: Cluster, data: Path) -> tuple[str, int]:
    """Run the victim until it has started, or ended by itself; what it said, and its exit code."""
    options = ("--replica", str(VICTIM), "--keys", str(cluster.keys), "--data", str(data))
    with subprocess.Popen(
        [*COMMAND, "node", *options], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "replica-started" in line:
                process.send_signal(signal.SIGTERM)
        return said, process.wait()


@pytest.mark.rule("R23")
@pytest.mark.rule("R41")
def test_a_replica_whose_state_is_damaged_fetches_it_from_the_others(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    asyncio.run(load_up(cluster, 100))
    cluster.kill([VICTIM])
    file = cluster.data / f"replica-{VICTIM}" / "state" / "data.mdb"
    flip_all(file, LEDGER)
    ended = pbft("inspect", cluster.data / f"replica-{VICTIM}")
    assert ended.returncode == 1
    assert "damaged: " in ended.stdout
    cluster.start([VICTIM])
    asyncio.run(agreed(cluster))
    said = cluster.log.read_text()
    assert f"error state-discarded replica={VICTIM} reason=" in said
    assert f"state-transfer-finished replica={VICTIM} " in said


@pytest.mark.rule("R41")
def test_a_state_that_no_checkpoint_covers_is_executed_again_from_the_log(
    make_cluster: MakeCluster,
) -> None:
    """Everybody was killed, everybody's state is gone, and there is none to fetch."""
    cluster = make_cluster()

    async def scenario() -> None:
        async with cluster.client() as client:
            await KV(client).put(b"kept", b"value")
            cluster.kill(cluster.replicas)
            for replica in cluster.replicas:
                shutil.rmtree(cluster.data / f"replica-{replica}" / "state")
            cluster.start(cluster.replicas)
            await until(client, cluster.replicas, ready)
            found = await KV(client).get(b"kept", ordered=True)
            assert found is not None
            assert found.value == b"value"

    asyncio.run(scenario())


@pytest.mark.rule("R41")
def test_a_replica_that_reads_what_it_has_not_written_stops_and_repairs_itself(
    make_cluster: MakeCluster,
) -> None:
    """The scrubber finds it while nobody asks for the record."""
    cluster = make_cluster()
    asyncio.run(load_up(cluster, 100))
    file = cluster.data / f"replica-{VICTIM}" / "state" / "data.mdb"
    flip_all(file, LEDGER)
    stopped = f"pbft: replica {VICTIM} stopped: the disk does not hold what was written to it"
    asyncio.run(written(cluster.log, stopped))
    cluster.processes.stop(VICTIM)  # it ends by itself; this waits for it
    cluster.start([VICTIM])
    asyncio.run(agreed(cluster))
    assert f"error state-discarded replica={VICTIM} reason=" in cluster.log.read_text()


def flip_all(file: Path, text: bytes) -> None:
    """A bit behind every occurrence, in place: LMDB maps the file."""
    image, at = file.read_bytes(), -1
    assert text in image
    with file.open("r+b") as handle:
        while (at := image.find(text, at + 1)) >= 0:
            handle.seek(at + len(text))
            handle.write(bytes([image[at + len(text)] ^ 1]))


def inspected(cluster: Cluster, replica: int) -> Any:
    ended = pbft("inspect", cluster.data / f"replica-{replica}", "--json")
    assert ended.stderr == ""
    return json.loads(ended.stdout)


def test_inspect_shows_what_is_on_a_disk(killed: Cluster) -> None:
    report = inspected(killed, VICTIM)
    assert [file["damage"] for file in report["files"].values()] == ["", ""]
    for file in report["files"].values():
        assert file["identity"]["replica"] == VICTIM
        assert file["identity"]["cluster"] == killed.config.cluster_id.hex()
        assert 0 < file["file_bytes"] < file["map_bytes"]
    log, state = report["log"], report["state"]
    assert not log["in_view_change"]
    assert log["incarnations"][str(VICTIM)] == 1
    assert len(log["stable_signers"]) == 3
    assert log["stable_checkpoint"] % 16 == 0 < log["stable_checkpoint"]
    assert state["seq"] % 16 == 0 < state["seq"]
    assert state["keys"] > 100
    assert state["sessions"] == 2
    assert state["target"] is None
    slots = log["slots"]
    assert [slot["seq"] for slot in slots] == sorted(slot["seq"] for slot in slots)
    assert any(slot["committed"] and slot["commit"] == log["view"] for slot in slots)
    text = pbft("inspect", killed.data / f"replica-{VICTIM}")
    assert text.returncode == 0
    assert f"replica {VICTIM} of cluster" in text.stdout
    assert f"stable          {log['stable_checkpoint']}, signed by" in text.stdout
    every = pbft("inspect", killed.data / f"replica-{VICTIM}", "--all").stdout.split()
    assert all(str(slot["seq"]) in every for slot in slots)
    runs = re.findall(r"^ +(\d+)(?:\.\.(\d+))?  ", text.stdout, re.MULTILINE)
    shown = [seq for first, last in runs for seq in range(int(first), int(last or first) + 1)]
    assert shown == [slot["seq"] for slot in slots]
    assert len(runs) < len(slots)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("name", ["log", "state"])
def test_inspect_says_what_is_damaged_and_shows_the_rest(
    killed: Cluster, tmp_path: Path, name: str
) -> None:
    shutil.copytree(killed.data / f"replica-{VICTIM}", tmp_path / "data")
    file = tmp_path / "data" / name / "data.mdb"
    file.write_bytes(file.read_bytes()[: 10 * PAGE])
    ended = pbft("inspect", tmp_path / "data", "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    report = json.loads(ended.stdout)
    other = "state" if name == "log" else "log"
    assert "cut short" in report["files"][name]["damage"]
    assert report[name] is None
    assert report[other] is not None
    assert "damaged: it is cut short" in pbft("inspect", tmp_path / "data").stdout


def test_inspect_refuses_what_is_in_use_or_is_not_there(calm: Cluster, tmp_path: Path) -> None:
    for folder, reason in (
        (calm.data / "replica-0", "replica-0 is in use by process"),
        (tmp_path, "there is no data of a replica in"),
        (tmp_path / "none", "there is no folder"),
    ):
        ended = pbft("inspect", folder)
        assert ended.returncode == 1
        assert ended.stderr.startswith("pbft: ")
        assert reason in ended.stderr


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size, which is full soon."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.rule("R47")
def test_a_replica_whose_disk_is_full_stops_says_so_and_comes_back_when_there_is_room(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster()
    place = cluster.data / f"replica-{VICTIM}"
    cluster.processes.stop(VICTIM)
    place.rename(tmp_path / "before")

    async def fill(client_count: int) -> None:
        async with cluster.clients(client_count) as (client, *_):
            number = 0
            while "the disk is full" not in cluster.log.read_text():
                await KV(client).put(b"%d" % number, bytes(50_000))
                number += 1
                assert number < 300

    with small_disk(place, "2m"):
        shutil.copytree(tmp_path / "before", place, dirs_exist_ok=True)
        cluster.start([VICTIM])
        asyncio.run(fill(1))
        asyncio.run(written(cluster.log, f"pbft: replica {VICTIM} stopped: the database in"))
        cluster.processes.stop(VICTIM)  # it ends by itself; this waits for it
        subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
        cluster.start([VICTIM])
        asyncio.run(agreed(cluster))
        cluster.processes.stop(VICTIM)


def test_a_node_on_a_full_disk_refuses_in_one_sentence(killed: Cluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as disk:
        (disk / "filler").touch()
        for left in (0, 1, 3, 6, 12, 20):  # pages
            shutil.rmtree(disk / "data", ignore_errors=True)
            fill_up(disk / "filler", left * PAGE)
            said, code = run_node(killed, disk / "data")
            assert code == 1, said
            assert "the disk is full: make room on it and start again" in said.splitlines()[-1]
            assert "Traceback" not in said


def fill_up(file: Path, left: int) -> None:
    """Let the file take all room but that."""
    file.write_bytes(b"")
    with file.open("wb", buffering=0) as handle, suppress(OSError):
        while handle.write(bytes(PAGE)) == PAGE:
            pass
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size - left)
