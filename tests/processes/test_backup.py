"""A backup of a running cluster, and a new cluster that begins with it."""

import asyncio
import json
from pathlib import Path

from client.kv import KV
from tests.processes.conftest import SHORT_WINDOW, MakeCluster, finish
from tests.processes.running import Cluster, agree, make_keys, read, ready, until, written

ENTRIES = 200


async def write(cluster: Cluster, prefix: bytes, count: int) -> None:
    async with cluster.client() as client:
        await until(client, cluster.replicas, ready)
        for first in range(0, count, 10):
            some = range(first, min(first + 10, count))
            await asyncio.gather(*(KV(client).put(prefix + b"%d" % n, b"v%d" % n) for n in some))


def back_up(cluster: Cluster, name: str) -> Path:
    made = cluster.cli("backup", "--out", name)
    assert made.returncode == 0, made.stderr
    return cluster.folder / name


def new_cluster(folder: Path) -> Cluster:
    make_keys(folder / "keys", 4, *SHORT_WINDOW)
    return Cluster(folder)


async def holds_all(cluster: Cluster, prefix: bytes) -> None:
    async with cluster.client() as client:
        found = await KV(client).prefix(prefix, ordered=True)
        assert {kv.key: kv.value for kv in found.kvs} == {
            prefix + b"%d" % n: b"v%d" % n for n in range(ENTRIES)
        }


def test_a_new_cluster_begins_with_the_backup_of_an_old_one(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    old = make_cluster()
    asyncio.run(write(old, b"old-", ENTRIES))
    asyncio.run(write(old, b"late-", 200))  # 20 batches at least: all of the first are certified
    file = back_up(old, "backup")
    again = old.cli("backup", "--out", "backup")
    assert again.returncode == 1
    assert "exists already and is never overwritten" in again.stderr
    old.kill(old.replicas)

    said = old.cli("verify", "backup")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("backup  of ")
    report = json.loads(old.cli("verify", "backup", "--json").stdout)
    assert report["seq"] % 16 == 0
    own = old.cli("restore", "backup", "--cluster", "keys/cluster.toml", "--data", "x")
    assert own.returncode == 1
    assert "cannot go back to a backup of its own" in own.stderr

    new = new_cluster(tmp_path / "new")
    try:
        restore = ("restore", file, "--cluster", old.keys / "cluster.toml", "--data")
        done = new.cli(*restore, "data")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(report["application_root"][:16]) == 4
        assert "never overwritten" in new.cli(*restore, "data").stderr
        new.start(new.replicas)
        asyncio.run(write(new, b"new-", ENTRIES))
        asyncio.run(holds_all(new, b"old-"))
        asyncio.run(holds_all(new, b"new-"))
    finally:
        finish(new)
    assert "state-diverged" not in read(new.log)


def test_a_replica_that_was_restored_differently_is_noticed_and_repaired(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    old = make_cluster()
    asyncio.run(write(old, b"old-", ENTRIES))
    asyncio.run(write(old, b"late-", 200))
    file = back_up(old, "backup")
    asyncio.run(write(old, b"more-", 200))
    asyncio.run(write(old, b"more-", 200))
    other = back_up(old, "other")
    old.kill(old.replicas)

    new = new_cluster(tmp_path / "new")
    try:
        for replica in new.replicas:
            what = other if replica == 3 else file
            place = ("--data", f"data/replica-{replica}", "--replica", replica)
            done = new.cli(
                "restore", what, "--cluster", old.keys / "cluster.toml", *map(str, place)
            )
            assert done.returncode == 0, done.stderr
        new.start(new.replicas)
        asyncio.run(write(new, b"new-", ENTRIES))
        asyncio.run(written(new.log, "state-diverged"))
        asyncio.run(written(new.log, "state-transfer-finished"))

        async def scenario() -> None:
            async with new.client() as client:
                await until(client, new.replicas, agree)

        asyncio.run(write(new, b"end-", 200))
        asyncio.run(scenario())
        asyncio.run(holds_all(new, b"old-"))
    finally:
        finish(new)


def test_a_damaged_backup_is_not_restored_and_leaves_nothing(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    old = make_cluster()
    asyncio.run(write(old, b"old-", ENTRIES))
    file = back_up(old, "backup")
    raw = file.read_bytes()
    file.write_bytes(raw[:-100] + b"?" + raw[-99:])
    assert "proves nothing" in old.cli("verify", "backup").stderr
    new = new_cluster(tmp_path / "new")
    done = new.cli("restore", file, "--cluster", old.keys / "cluster.toml", "--data", "data")
    assert done.returncode == 1
    assert "backup cannot be restored: " in done.stderr
    assert list((new.folder / "data").iterdir()) == []
    new.close()
