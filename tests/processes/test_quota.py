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


@pytest.mark.rule("R47")
def test_a_full_store_is_read_emptied_compacted_and_written_again(cluster: Cluster) -> None:
    async def fill() -> int:
        async with cluster.client() as client:
            kv, written = KV(client), 0
            with pytest.raises(Refused, match=f"has reached its quota of {QUOTA} bytes"):
                while True:
                    await kv.put(b"%04d" % written, bytes(10_000))
                    written += 1
            assert (await kv.get(b"0000")).value == bytes(10_000)
            found = await until(client, cluster.replicas, lambda found: len(found) == 4)
            assert {report["max_state_bytes"] for report in found.values()} == {QUOTA}
            assert all(report["state_bytes"] > QUOTA * 9 // 10 for report in found.values())
            assert (await kv.delete_range(b"0001")).deleted == written - 1
            with pytest.raises(Refused, match="quota"):
                await kv.put(b"k", bytes(10_000))
            return written

    async def empty() -> None:
        async with cluster.client() as client:
            await until(client, cluster.replicas, small)
            await KV(client).put(b"k", bytes(10_000))

    assert asyncio.run(fill()) > 30
    compacted = cluster.cli("kv", "compact")
    assert (compacted.returncode, compacted.stdout.split()[0]) == (0, "revision")
    asyncio.run(empty())
