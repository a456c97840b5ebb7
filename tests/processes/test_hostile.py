"""Strangers at the door, clusters of other sizes, and too few replicas."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from client.client import Client
from client.errors import DeadlineExceeded, NotConnected
from client.kv import KV
from pbft.config_keys import load_client_signer
from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.running import Cluster, ready, reports, until

STRANGERS = 100  # more at once than one address may have unauthenticated
REASONS = ("frame-", "handshake-", "too-many-", "unauthenticated")


def garbage(chance: Random) -> bytes:
    """Something that no member of a cluster says first."""
    return chance.choice(
        (
            b"",
            b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),  # TLS
            b"\xc6\xff\xff\xff\xff" + chance.randbytes(100),  # 4 GiB of bytes
            b"\xdd\xff\xff\xff\xff",  # 2^32 elements
            b"\x91" * 10_000,  # nested arrays
            bytes(chance.randrange(1, 5000)),
            chance.randbytes(chance.randrange(1, 5000)),
        )
    )


async def strangers(port: int, chance: Random) -> None:
    """Many connections at once that talk nonsense, or nothing, until they are thrown out."""

    async def one(said: bytes) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        try:
            writer.write(said)
            async with asyncio.timeout(20):
                await reader.read()
        except OSError:
            pass  # thrown out
        finally:
            writer.close()

    await asyncio.gather(*(one(garbage(chance)) for _ in range(STRANGERS)))


@pytest.mark.rule("R43")
def test_garbage_at_a_port_does_not_disturb_those_who_work(make_cluster: MakeCluster) -> None:
    cluster, chance = make_cluster(), Random(7)

    async def scenario() -> None:
        async with cluster.clients(5) as (watcher, *clients):
            load = Load(clients)
            before = await until(watcher, cluster.replicas, ready)
            ports = [info.port for info in cluster.config.replicas]
            async with load.running():
                thrown = asyncio.gather(*(strangers(port, chance) for port in ports))
                await load.more(100)
                assert not thrown.done()  # the silent ones were still there
                await thrown
                await load.more(20)
            await load.verify()
            after = await reports(watcher, cluster.replicas)
            for replica in cluster.replicas:
                seen = refusals(after[replica]["counters"]) - refusals(before[replica]["counters"])
                assert seen >= STRANGERS // 2

    asyncio.run(scenario())


def refusals(counters: dict[str, int]) -> int:
    return sum(count for name, count in counters.items() if name.startswith(REASONS))


@pytest.mark.rule("R6")
def test_five_replicas_need_four(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(5)

    async def scenario() -> None:
        async with cluster.client() as client, cluster.client(deadline=2.0) as hasty:
            await KV(hasty).put(b"key", b"five")
            cluster.kill([4])
            await KV(client).put(b"key", b"four")
            cluster.kill([3])  # three of five: 2f+1, but no quorum
            with pytest.raises(DeadlineExceeded) as late:
                await KV(hasty).put(b"key", b"three")
            assert late.value.sent
            found = await reports(client, [0, 1, 2])
            assert len({report["last_executed"] for report in found.values()}) == 1
            cluster.start([3])
            assert (await KV(client).get(b"key", ordered=True)).value in (b"four", b"three")
            await KV(client).put(b"key", b"again")
            assert (await KV(client).get(b"key")).value == b"again"

    asyncio.run(scenario())


@pytest.mark.rule("R13")
def test_too_few_replicas_give_a_sentence_and_no_answer(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    assert cluster.cli("kv", "put", "key", "value").returncode == 0
    cluster.kill([2, 3])
    ended = cluster.cli("kv", "--timeout", "1", "put", "key", "other")
    assert ended.returncode == 1
    assert ended.stderr == (
        "pbft: no outcome within the deadline: see `pbft status` for who answers\n"
    )
    ended = cluster.cli("kv", "--timeout", "1", "get", "key")
    assert (ended.returncode, ended.stdout) == (1, "")
    cluster.kill([1])
    ended = cluster.cli("kv", "--timeout", "1", "get", "key")
    assert ended.returncode == 1
    assert ended.stderr == (
        "pbft: 1 of 4 replicas could be reached and 2 are needed: "
        "see `pbft status` for who answers\n"
    )


@pytest.mark.rule("R7")
def test_a_client_with_one_other_parameter_is_not_talked_to(calm: Cluster) -> None:
    other = replace(calm.config.parameters, request_timeout_ms=1001)
    signer = load_client_signer(calm.config, calm.keys, "client-0")

    async def scenario() -> None:
        async with Client(replace(calm.config, parameters=other), signer, deadline=1.0) as client:
            with pytest.raises(NotConnected, match="0 of 4 replicas could be reached"):
                await client.submit(b"anything")

    asyncio.run(scenario())
