"""Replicas that are killed, stopped and left behind while clients go on (R40)."""

import asyncio
import shutil
from random import Random

import pytest

from client.client import Client
from client.kv import KV
from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.running import (
    Cluster,
    agree,
    executed,
    foremost,
    in_view_above,
    ready,
    until,
    voting,
    written,
)

CLIENTS = 4


async def catch_up(cluster: Cluster, watcher: Client) -> None:
    """Everybody gets to where the foremost is now, although the others go on."""
    found = await until(watcher, cluster.replicas, voting)
    await until(watcher, cluster.replicas, executed(foremost(found)))


async def settle(cluster: Cluster, load: Load) -> None:
    """All replicas reach the same state at the same checkpoint, and no write was lost."""
    async with cluster.client() as client:
        await load.verify()
        interval = cluster.config.parameters.checkpoint_interval
        for number in range(interval + 1):  # so that a checkpoint covers all that was done
            await KV(client).put(b"settle", b"%d" % number)
        await until(client, cluster.replicas, agree)


@pytest.mark.rule("R40")
def test_a_killed_primary_is_replaced_and_catches_up_when_it_is_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            load = Load(clients)
            async with load.running():
                await load.more(50)
                found = await until(watcher, cluster.replicas, ready)
                primary, view = found[0]["primary"], found[0]["view"]
                cluster.kill([primary])
                others = [replica for replica in cluster.replicas if replica != primary]
                await until(watcher, others, in_view_above(view))
                await load.more(50)
                cluster.start([primary])
                await catch_up(cluster, watcher)
                await load.more(50)
            await settle(cluster, load)

    asyncio.run(scenario())


@pytest.mark.rule("R39")
@pytest.mark.rule("R40")
@pytest.mark.parametrize("seed", [1])
def test_kills_at_random_moments_lose_nothing(make_cluster: MakeCluster, seed: int) -> None:
    cluster, chance = make_cluster(), Random(seed)
    rounds = [1, 1, 2, 4, 4]  # how many die at once
    chance.shuffle(rounds)

    async def kill(load: Load, count: int) -> None:
        """Kill some; half of the time once more while they are still starting."""
        await load.more(chance.randrange(10, 60))
        victims = chance.sample(list(cluster.replicas), count)
        cluster.kill(victims)
        cluster.start(victims)
        if chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, 1))
            cluster.kill(victims)
            cluster.start(victims)

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            load = Load(clients)
            async with load.running():
                for count in rounds:
                    await kill(load, count)
                    await catch_up(cluster, watcher)
                await load.more(20)
            await settle(cluster, load)

    asyncio.run(scenario())


@pytest.mark.rule("R23")
def test_a_replica_that_was_down_for_longer_than_the_window_fetches_the_state(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    absent = 3

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            load = Load(clients)
            async with load.running():
                await load.more(20)
                cluster.processes.stop(absent)
                others = [replica for replica in cluster.replicas if replica != absent]
                found = await until(watcher, others, voting)
                past = foremost(found) + 2 * cluster.config.parameters.window
                await until(watcher, others, executed(past))
                cluster.start([absent])
                await catch_up(cluster, watcher)
                await load.more(20)
            await settle(cluster, load)

    asyncio.run(scenario())
    assert f"state-transfer-finished replica={absent} " in cluster.log.read_text()


@pytest.mark.rule("R41")
def test_a_wiped_replica_comes_back_while_the_others_go_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    wiped = 2

    async def scenario() -> None:
        async with cluster.clients(CLIENTS + 1) as (watcher, *clients):
            load = Load(clients)
            async with load.running():
                await load.more(20)
                cluster.processes.stop(wiped)
                shutil.rmtree(cluster.data / f"replica-{wiped}")
                cluster.start([wiped])
                await written(cluster.log, f"memory-lost replica={wiped} ")
                await load.more(50)
                await written(cluster.log, f"memory-no-longer-needed replica={wiped} ")
                await catch_up(cluster, watcher)
            await settle(cluster, load)

    asyncio.run(scenario())


@pytest.mark.rule("R23")
@pytest.mark.rule("R41")
def test_all_are_killed_and_one_is_wiped_and_without_a_client_the_cluster_comes_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    wiped = 0

    async def write() -> None:
        async with cluster.clients(1) as (client,):
            await KV(client).put(b"key", b"value")

    async def see() -> None:
        async with cluster.clients(1) as (watcher,):
            await until(watcher, cluster.replicas, ready)
            assert (await KV(watcher).get(b"key")).value == b"value"

    asyncio.run(write())
    cluster.kill(list(cluster.replicas))
    shutil.rmtree(cluster.data / f"replica-{wiped}")
    cluster.start(list(cluster.replicas))
    asyncio.run(written(cluster.log, f"memory-no-longer-needed replica={wiped} "))
    asyncio.run(see())
