"""What a cluster shows of itself: status, benchmark, metrics, help."""

import asyncio
import json
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from client.kv import KV
from pbft.cli.main import COMMANDS
from tests.processes.conftest import MakeCluster
from tests.processes.running import COMMAND, Cluster, agree, free_ports, pbft, ready, until


def test_status_shows_every_replica(calm: Cluster) -> None:
    ended = calm.cli("status")
    assert ended.returncode == 0
    for info in calm.config.replicas:
        [line] = [line for line in ended.stdout.splitlines() if f":{info.port} " in line]
        assert line.split()[2] == "yes"


def test_status_as_json_holds_all_that_is_reported(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()

    async def write() -> None:
        async with cluster.client() as client:
            for number in range(cluster.config.parameters.checkpoint_interval + 1):
                await KV(client).put(b"key", b"%d" % number)
            await until(client, cluster.replicas, agree)

    asyncio.run(write())
    found = json.loads(cluster.cli("status", "--json").stdout)
    assert [report["replica"] for report in found] == [0, 1, 2, 3]
    for report, info in zip(found, cluster.config.replicas, strict=True):
        assert report["address"] == f"{info.host}:{info.port}"
        assert report["reachable"]
        assert report["primary"] == report["view"] % 4
        assert report["last_executed"] > report["stable_checkpoint"] == 16
        assert (report["low_watermark"], report["high_watermark"]) == (16, 16 + 64)
        assert len(bytes.fromhex(report["state_digest"])) == 32
        assert report["counters"]
    assert len({report["state_digest"] for report in found}) == 1
    cluster.kill([3])
    found = json.loads(cluster.cli("status", "--timeout", "1", "--json").stdout)
    assert [report["reachable"] for report in found] == [True, True, True, False]


def test_a_benchmark_measures(calm: Cluster) -> None:
    options = ("--clients", "4", "--in-flight", "2", "--size", "10", "--duration", "1")
    key_space = ("--key-space", "5")
    ended = calm.cli("bench", *options, *key_space, "--json")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["errors"] == {}
    assert figures["operations"] > 10
    assert figures["seconds"] >= 1
    rate = figures["operations"] / figures["seconds"]
    assert figures["operations_per_second"] == pytest.approx(rate, abs=1)
    percentiles = [figures[name] for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")]
    assert percentiles[0] > 0
    assert percentiles == sorted(percentiles)
    # It really wrote, and no more keys than it should.
    keys = calm.cli("kv", "range", "bench/0", "bench/1").stdout
    assert keys == "".join(f"bench/{number:09}\t{'x' * 10}\n" for number in range(5))


def test_metrics_are_served_for_prometheus(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.processes.stop(3)
    endpoint = f"127.0.0.1:{free_ports(1)}"
    files = ("--keys", str(cluster.keys), "--data", str(cluster.data / "replica-3"))
    command = [*COMMAND, "node", "--replica", "3", *files, "--metrics", endpoint]

    async def scenario() -> int:
        async with cluster.client() as client:
            await until(client, cluster.replicas, ready)
            await KV(client).put(b"key", b"value")
            found = await until(client, cluster.replicas, agree_on_position)
            return int(found[3]["last_executed"])

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        executed = asyncio.run(scenario())
        with urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            families = list(text_string_to_metric_families(answer.read().decode()))
    finally:
        process.terminate()
        process.wait(timeout=10)
    values = {family.name: family.samples for family in families}
    assert [sample.value for sample in values["pbft_last_executed"]] == [executed]
    assert {"pbft_view", "pbft_stable_checkpoint", "pbft_pending_requests"} <= set(values)
    reasons = {sample.labels["reason"] for sample in values["pbft_events"]}
    assert "evidence" in reasons
    assert process.returncode == 0


def agree_on_position(found: dict[int, dict[str, int]]) -> bool:
    """All have executed the same."""
    return len({report["last_executed"] for report in found.values()}) == 1


KV_COMMANDS = ("put", "get", "delete", "range", "txn")


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), *(("kv", name) for name in KV_COMMANDS)]
)
def test_every_command_has_help(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = pbft(*command, "--help", folder=tmp_path)
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith("Usage: ")
    assert "--help" in ended.stdout
