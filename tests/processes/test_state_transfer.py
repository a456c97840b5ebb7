"""Real replicas that fetch a state of some megabytes while the others go on at full speed (R23)."""

import asyncio
import os
import signal
from collections.abc import Iterable
from random import Random

import pytest

from client.client import Client
from client.kv import KV
from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.running import (
    Cluster,
    Reports,
    executed,
    foremost,
    ready,
    reports,
    until,
    voting,
    written,
)
from tests.processes.test_crashes import catch_up, settle

CLIENTS = 4
ABSENT, SOURCE = 3, 1
ENTRIES, ENTRY_BYTES = 3000, 2000


async def fill(clients: Iterable[Client]) -> None:
    """Some megabytes of state."""
    numbers, random = iter(range(ENTRIES)), Random(1)

    async def lane(store: KV) -> None:
        for number in numbers:
            await store.put(b"fill/%d" % number, random.randbytes(ENTRY_BYTES))

    await asyncio.gather(*(lane(KV(client)) for client in clients for _ in range(16)))


async def fall_behind(cluster: Cluster, watcher: Client, clients: list[Client]) -> None:
    """Replica ABSENT is away while the others go on for longer than their window."""
    cluster.processes.stop(ABSENT)
    await fill(clients)
    others = [replica for replica in cluster.replicas if replica != ABSENT]
    found = await until(watcher, others, voting)
    await until(watcher, others, executed(foremost(found)))


async def begun(cluster: Cluster, times: int = 1) -> None:
    """It has begun to fetch, that often: what it fetches takes much longer than to notice this."""
    await written(cluster.log, f"state-transfer-started replica={ABSENT} ", times)


def fetched(found: Reports) -> bool:
    """It has all of the state."""
    return found[ABSENT]["transfer"] is None


@pytest.mark.rule("R23")
def test_a_fetching_replica_survives_kills_and_the_loss_of_the_primary_under_load(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            await fall_behind(cluster, watcher, clients)
            load = Load(clients)
            async with load.running():
                cluster.start([ABSENT])
                for times in (1, 2):
                    await begun(cluster, times)
                    cluster.kill([ABSENT])
                    cluster.start([ABSENT])
                await begun(cluster, 3)
                [primary] = {r["primary"] for r in (await reports(watcher, [0, 1, 2])).values()}
                cluster.kill([primary])
                rest = [replica for replica in cluster.replicas if replica != primary]
                await until(watcher, rest, ready)
                await load.more(20)
                cluster.start([primary])
                await catch_up(cluster, watcher)
            await settle(cluster, load)

    asyncio.run(scenario())
    log = cluster.log.read_text()
    assert f"state-transfer-finished replica={ABSENT} " in log


@pytest.mark.rule("R23")
def test_a_source_that_stops_in_the_middle_is_changed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            await fall_behind(cluster, watcher, clients)
            cluster.start([ABSENT])
            await begun(cluster)
            pid = cluster.processes.running()[SOURCE]
            os.kill(pid, signal.SIGSTOP)
            try:
                await until(watcher, [ABSENT], fetched)
            finally:
                os.kill(pid, signal.SIGCONT)
            await catch_up(cluster, watcher)

    asyncio.run(scenario())
