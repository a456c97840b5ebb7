"""Clusters of real processes: one that nobody hurts, shared, and others to be maltreated."""

import asyncio
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes.running import Cluster, make_keys, ready, until


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    """A shell's background jobs ignore SIGINT, and so would every process that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


SHORT_WINDOW = ("--set", "checkpoint_interval=16", "--set", "window=64")

MakeCluster = Callable[..., Cluster]


def start(
    folder: Path, replicas: int, options: tuple[str, ...], faulty: dict[int, str] | None = None
) -> Cluster:
    """A cluster whose replicas all answer, may vote, and are in one view."""
    make_keys(folder / "keys", replicas, *options)
    cluster = Cluster(folder)
    for replica in cluster.replicas:
        cluster.processes.start(replica, (faulty or {}).get(replica))

    async def wait() -> None:
        async with cluster.client() as client:
            await until(client, cluster.replicas, ready)

    try:
        asyncio.run(wait())
    except BaseException:
        cluster.close()
        raise
    return cluster


def finish(cluster: Cluster) -> None:
    """Stop it; no replica may have met a bug of its own."""
    cluster.close()
    log = cluster.log.read_text()
    bug = re.search(r"Traceback|pbft: unexpected ", log)
    assert bug is None, log[bug.start() :][:4000]


@pytest.fixture(scope="package")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for tests that leave it as it is, but for keys of their own."""
    cluster = start(tmp_path_factory.mktemp("calm"), 4, ())
    yield cluster
    finish(cluster)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Start a cluster of one's own, with a window of 64 sequence numbers."""
    made: list[Cluster] = []

    def make(replicas: int = 4, faulty: dict[int, str] | None = None) -> Cluster:
        lab = ("--lab",) if faulty else ()
        made.append(start(tmp_path, replicas, (*SHORT_WINDOW, *lab), faulty))
        return made[-1]

    yield make
    for cluster in made:
        finish(cluster)
