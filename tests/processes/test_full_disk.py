"""A replica whose own disk is full stops, says so, and comes back when there is room (R39, R47)."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client.client import Client
from tests.processes.conftest import SHORT_WINDOW, finish
from tests.processes.load import Load
from tests.processes.running import (
    COMMAND,
    POLL_SECONDS,
    WAIT_SECONDS,
    Cluster,
    executed,
    foremost,
    make_keys,
    pbft,
    ready,
    until,
    voting,
    written,
)
from tests.processes.test_crashes import settle

VICTIM = 3
DISK_BYTES = 24 * 1024**2
FULL = "failed: the disk is full: make room on it and start again, nothing is lost"
TINY = """
import sys
from pbft.cli import main, node
from pbft.node.space import Room
node.room_within = lambda *_: Room(64 * 1024**2, 256 * 1024)
sys.exit(main.main())
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`; skips where that may not be had."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all room that is left."""
    with (folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


@contextmanager
def cluster_on(folder: Path) -> Iterator[Cluster]:
    """A cluster that is not started yet."""
    make_keys(folder / "keys", 4, *SHORT_WINDOW)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        finish(cluster)


async def ended(cluster: Cluster, load: Load) -> tuple[int, int]:
    """Wait, while the clients write, until a replica has ended by itself; and its exit code."""
    for _ in range(round(WAIT_SECONDS / POLL_SECONDS)):
        if found := cluster.processes.take_ended():
            return found[0]
        await load.more(1)
    raise AssertionError("no replica has ended")


async def comes_back(cluster: Cluster, watcher: Client, load: Load) -> None:
    """It takes part again, has what the others have, and has contradicted nothing."""
    found = await until(watcher, cluster.replicas, voting)
    await until(watcher, cluster.replicas, executed(foremost(found)))
    await load.more(20)
    found = await until(watcher, cluster.replicas, ready)
    assert [report["counters"].get("evidence", 0) for report in found.values()] == [0] * 4


@pytest.mark.rule("R39")
@pytest.mark.rule("R47")
def test_a_replica_on_a_full_disk_stops_and_comes_back_with_nothing_lost(tmp_path: Path) -> None:
    disk = tmp_path / "data" / f"replica-{VICTIM}"
    with small_disk(disk), cluster_on(tmp_path) as cluster:

        async def scenario() -> None:
            async with cluster.clients(5) as (watcher, *clients):
                await until(watcher, cluster.replicas, ready)
                load = Load(clients)
                async with load.running():
                    await load.more(50)
                    fill(disk)
                    assert await ended(cluster, load) == (VICTIM, 1)
                    await written(cluster.log, FULL)
                    await load.more(50)  # the others go on
                    cluster.start([VICTIM])
                    assert await ended(cluster, load) == (VICTIM, 1)
                    await written(cluster.log, FULL, 2)
                    (disk / "ballast").unlink()
                    cluster.start([VICTIM])
                    await comes_back(cluster, watcher, load)
                await settle(cluster, load)

        cluster.start(cluster.replicas)
        asyncio.run(scenario())


@pytest.mark.rule("R47")
def test_a_replica_whose_file_has_reached_its_bound_stops_and_comes_back_with_a_larger_one(
    tmp_path: Path,
) -> None:
    with cluster_on(tmp_path) as cluster:
        command = [sys.executable, "-c", TINY, "node", "--replica", str(VICTIM)]
        command += ["--keys", str(cluster.keys), "--data", str(cluster.data / f"replica-{VICTIM}")]

        async def scenario() -> None:
            async with cluster.clients(5) as (watcher, *clients):
                await until(watcher, cluster.replicas, ready)
                load = Load(clients)
                async with load.running():
                    while tiny.poll() is None:
                        await load.more(1)
                    assert tiny.returncode == 1
                    await load.more(50)
                    cluster.start([VICTIM])
                    await comes_back(cluster, watcher, load)
                await settle(cluster, load)

        cluster.start(replica for replica in cluster.replicas if replica != VICTIM)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tiny:
            try:
                asyncio.run(scenario())
                assert tiny.stderr is not None
                assert "it has reached its configured size: start" in tiny.stderr.read()
            finally:
                tiny.kill()


@pytest.mark.parametrize("pages", [0, 2, 5, 6, 7, 10, 14])
def test_a_first_start_on_a_nearly_full_disk_is_an_error_and_the_next_one_a_start(
    tmp_path: Path, pages: int
) -> None:
    make_keys(tmp_path / "keys", 4)
    with small_disk(tmp_path / "disk"):
        fill(tmp_path / "disk")
        os.truncate(ballast := tmp_path / "disk" / "ballast", ballast.stat().st_size - pages * 4096)
        options = ("--replica", "0", "--keys", tmp_path / "keys", "--data", tmp_path / "disk" / "d")
        failed = pbft("node", *options)
        assert failed.returncode == 1, failed
        assert "the disk is full" in failed.stderr or "No space left" in failed.stderr
        ballast.unlink()
        command = [*COMMAND, "node", *map(str, options)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                assert "replica-started" in process.stderr.readline()
            finally:
                process.kill()
