"""Proofs and tokens against real replicas, one of which lies to clients and to whoever asks."""

import asyncio
import json

from client import SyncClient, SyncKV, verify_proof
from client.kv import KV
from tests.processes.conftest import MakeCluster
from tests.processes.running import Cluster, until


def write(cluster: Cluster, count: int) -> None:
    """That many batches."""

    async def scenario() -> None:
        async with cluster.client() as client:
            for number in range(count):
                await KV(client).put(b"filler-%d" % number, b"x")

    asyncio.run(scenario())


def certified(cluster: Cluster) -> None:
    """Wait until all have a stable checkpoint."""

    async def scenario() -> None:
        async with cluster.client() as client:
            await until(
                client,
                cluster.replicas,
                lambda found: all(r["stable_checkpoint"] >= 16 for r in found.values()),
            )

    asyncio.run(scenario())


def test_a_value_is_proved_by_the_command_line_and_checked_without_replicas(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    assert cluster.cli("kv", "put", "color", "blue").returncode == 0
    early = cluster.cli("kv", "--timeout", "1", "get", "color", "--proof", "p")
    assert early.returncode == 1
    assert "no stable checkpoint to show yet" in early.stderr
    write(cluster, 20)
    certified(cluster)
    got = cluster.cli("kv", "get", "color", "--proof", "p")
    assert (got.returncode, got.stdout) == (0, "blue\n"), got.stderr
    gone = cluster.cli("kv", "get", "colour", "--proof", "absent")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "absent proves that" in gone.stderr
    cluster.kill(cluster.replicas)

    said = cluster.cli("verify", "p", "--cluster", "keys/cluster.toml")
    assert said.returncode == 0, said.stderr
    assert "key     color\nvalue   blue\n" in said.stdout
    assert "signed  by 3 of 4 replicas" in said.stdout
    assert "value   (absent)" in cluster.cli("verify", "absent").stdout
    report = json.loads(cluster.cli("verify", "p", "--json").stdout)
    assert bytes.fromhex(report["value_hex"]) == b"blue"
    assert report["seq"] % 16 == 0
    newer = cluster.cli("verify", "p", "--min-seq", str(report["seq"] + 1))
    assert newer.returncode == 1
    assert "it speaks for the state after" in newer.stderr
    forged = (cluster.folder / "p").read_bytes().replace(b"blue", b"glue")
    (cluster.folder / "p").write_bytes(forged)
    refused = cluster.cli("verify", "p")
    assert refused.returncode == 1
    assert refused.stderr.startswith("pbft: p proves nothing: ")
    assert refused.stderr.count("\n") == 1


def test_the_library_proves_and_reads_what_it_has_written(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    files = cluster.keys / "cluster.toml", cluster.keys / "client-0.pem"
    with SyncClient.connect(*files) as client:
        store = SyncKV(client)
        for number in range(20):
            store.put(b"n", b"%d" % number)
            assert store.get(b"n", at_least=client.token).value == b"%d" % number
        token = client.token
        proven = store.get_verified(b"n", min_seq=16)
        assert verify_proof(proven.proof, cluster.config, min_seq=16) == proven
        assert proven.value is not None
        assert client.prove(b"n").value is None, "the map's keys have a prefix"
    assert token >= 20
    with SyncClient.connect(*files) as again:
        assert again.token == 0
        assert SyncKV(again).get(b"n", at_least=token).value == b"19"
        assert again.token >= token


def test_a_liar_changes_no_proof(make_cluster: MakeCluster) -> None:
    liar = 2
    cluster = make_cluster(faulty={liar: "lie"})
    write(cluster, 20)
    certified(cluster)

    async def scenario() -> None:
        async with cluster.client() as client:
            proven = await asyncio.gather(
                *(KV(client).get_verified(b"filler-3") for _ in range(12))
            )
            assert {each.value for each in proven} == {b"x"}
            counters = (await client.status(liar))["counters"]
            assert counters["faulty-lie"] > 0

    asyncio.run(scenario())
