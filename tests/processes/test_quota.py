"""The quota as an operator meets it: refusals, what is seen, and the way out (R47)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.errors import Refused
from client.kv import KV
from tests.processes.conftest import finish, start
from tests.processes.running import Cluster, Reports, until

QUOTA = 400_000
OPTIONS = ("--set", f"max_state_bytes={QUOTA}", "--set", "max_operation_bytes=100000")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = start(tmp_path, 4, OPTIONS)
    yield started
    finish(started)


def small(found: Reports) -> bool:
    """The state needs little room on every replica."""
    return all(report["state_bytes"] < QUOTA // 4 for report in found.values())


async def taken(kv: KV, key: bytes) -> bool:
    """Whether the store takes 10,000 bytes more."""
    try:
        await kv.put(key, bytes(10_000))
    except Refused as refused:
        return f"has reached its quota of {QUOTA} bytes" not in str(refused)
    return True


@pytest.mark.rule("R47")
def test_a_full_store_is_read_emptied_compacted_and_written_again(cluster: Cluster) -> None:
    async def fill() -> int:
        async with cluster.client() as client:
            kv, written = KV(client), 0
            while await taken(kv, b"%04d" % written):
                written += 1
            assert (await kv.get(b"0000")).value == bytes(10_000)
            found = await until(client, cluster.replicas, lambda found: len(found) == 4)
            assert {report["max_state_bytes"] for report in found.values()} == {QUOTA}
            assert all(report["state_bytes"] > QUOTA * 9 // 10 for report in found.values())
            assert (await kv.delete_range(b"0001")).deleted == written - 1
            assert not await taken(kv, b"k")
            return written

    async def empty() -> None:
        async with cluster.client() as client:
            await until(client, cluster.replicas, small)
            assert await taken(KV(client), b"k")

    assert asyncio.run(fill()) > 30
    compacted = cluster.cli("kv", "compact")
    assert (compacted.returncode, compacted.stdout.split()[0]) == (0, "revision")
    asyncio.run(empty())
