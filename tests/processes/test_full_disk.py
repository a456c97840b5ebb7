"""A replica whose own disk is full stops, says so, and comes back when there is room (R39, R47)."""

import asyncio
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
    POLL_SECONDS,
    WAIT_SECONDS,
    Cluster,
    executed,
    foremost,
    make_keys,
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
