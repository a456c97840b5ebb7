"""The key-value store over real sockets: by the command line and by both libraries."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client.errors import Refused
from client.transactions import compare_value, compare_version, op_get, op_put
from pbft import KV, SyncClient, SyncKV
from tests.processes.running import Cluster

Kv = Callable[..., str]


@pytest.fixture
def kv(calm: Cluster) -> Kv:
    """`pbft kv` with these arguments: what it prints, after its exit code was checked."""

    def run(*arguments: str, code: int = 0) -> str:
        ended = calm.cli("kv", *arguments)
        assert ended.returncode == code, ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    return run


def test_the_command_line_puts_gets_and_deletes(kv: Kv) -> None:
    assert kv("get", "cli/color", code=1) == "pbft: there is no key 'cli/color'\n"
    assert kv("put", "cli/color", "dark blue").startswith("revision ")
    assert kv("get", "cli/color") == "dark blue\n"
    assert kv("get", "--ordered", "cli/color") == "dark blue\n"
    assert kv("delete", "cli/color").startswith("revision ")
    assert kv("delete", "cli/color", code=1) == "pbft: there is no key 'cli/color'\n"
    assert kv("get", "cli/color", code=1) == "pbft: there is no key 'cli/color'\n"


def test_the_command_line_reads_what_was_before(kv: Kv) -> None:
    first = kv("put", "cli/old", "one").split()[1]
    kv("put", "cli/old", "two")
    assert kv("get", "cli/old") == "two\n"
    assert kv("get", "--revision", first, "cli/old") == "one\n"
    assert kv("range", "--revision", first, "cli/old", "cli/old~") == "cli/old\tone\n"
    assert "future revision" in kv("get", "--revision", "999999999", "cli/old", code=1)


def executed(calm: Cluster) -> int:
    """The most that any replica has executed."""
    replicas = json.loads(calm.cli("status", "--json").stdout)
    return max(report["last_executed"] for report in replicas)


@pytest.mark.rule("R20")
def test_a_token_file_carries_on_what_was_seen(calm: Cluster, kv: Kv, tmp_path: Path) -> None:
    token = tmp_path / "seen"
    assert kv("--token", str(token), "get", "cli/token", code=1)
    numbers = []
    for value in ("one", "two", "three"):
        kv("--token", str(token), "put", "cli/token", value)
        numbers.append(int(token.read_text().split()[2]))
        assert kv("--token", str(token), "get", "cli/token") == f"{value}\n"
    assert numbers == sorted(set(numbers))
    mark, cluster, _ = token.read_text().split()
    before = executed(calm)
    assert kv("--token", str(token), "get", "cli/token") == "three\n"
    assert executed(calm) == before, "w replicas were far enough: nothing was ordered"
    token.write_text(f"{mark} {cluster} {2**62}\n")
    assert kv("--token", str(token), "get", "cli/token") == "three\n"
    assert executed(calm) > before, "nobody has executed so much: the read was ordered"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"pbft-token {'00' * 32} 7", "of another cluster"),
        ("pbft-token", "is no file that --token has written"),
        ("", "is no file that --token has written"),
        ("\udcff" * 300, "is no file that --token has written"),
    ],
)
def test_a_wrong_token_file_is_refused_before_anything_is_written(
    kv: Kv, tmp_path: Path, content: str, reason: str
) -> None:
    token = tmp_path / "seen"
    token.write_text(content, errors="surrogateescape")
    assert reason in kv("--token", str(token), "put", "cli/unwritten", "x", code=1)
    assert kv("get", "cli/unwritten", code=1)
    assert token.read_text(errors="surrogateescape") == content


def test_the_command_line_reads_ranges(kv: Kv) -> None:
    for name in "abc":
        kv("put", f"cli/range/{name}", name.upper())
    lines = [f"cli/range/{name}\t{name.upper()}\n" for name in "abc"]
    assert kv("range", "cli/range/a", "cli/range/c") == "".join(lines[:2])
    assert kv("range", "cli/range/", "cli/range0") == "".join(lines)
    assert kv("range", "--limit", "1", "cli/range/") == lines[0]


def test_the_command_line_does_transactions(kv: Kv) -> None:
    create = ("txn", "--if", "cli/txn version = 0", "--then", "put cli/txn 'dark red'")
    otherwise = ("--else", "get cli/txn")
    assert kv(*create, *otherwise) == "succeeded\nput\n"
    assert kv(*create, *otherwise) == "failed\ncli/txn\tdark red\n"
    swap = ("txn", "--if", "cli/txn value = 'dark red'", "--then", "delete cli/txn")
    assert kv(*swap) == "succeeded\ndeleted 1\n"


def test_the_command_line_takes_any_bytes_as_digits(kv: Kv) -> None:
    kv("--hex", "put", "ff00", "0a")
    assert kv("--hex", "get", "ff00") == "0a\n"


def test_another_client_sees_what_one_has_written(kv: Kv) -> None:
    kv("--client", "client-0", "put", "cli/shared", "x")
    assert kv("--client", "client-1", "get", "cli/shared") == "x\n"


def test_the_library_does_all_that_the_store_can(calm: Cluster) -> None:
    async def scenario() -> None:
        async with calm.client() as client:
            store = KV(client)
            written = await store.put(b"lib/a", b"1")
            replaced = await store.put(b"lib/a", b"2", prev=True)
            assert replaced.prev_kv is not None
            assert replaced.prev_kv.value == b"1"
            assert (await store.get(b"lib/a")).value == b"2"
            assert (await store.get(b"lib/a", revision=written.revision)).value == b"1"
            done = await store.txn(
                (compare_value(b"lib/a", "==", b"2"), compare_version(b"lib/b", "==", 0)),
                (op_put(b"lib/b", b"3"), op_get(b"lib/a")),
            )
            assert done.succeeded
            found = await store.prefix(b"lib/")
            assert [(kv.key, kv.value) for kv in found.kvs] == [(b"lib/a", b"2"), (b"lib/b", b"3")]
            assert (await store.delete(b"lib/a")).deleted == 1
            assert (await store.get(b"lib/a", ordered=True)).value is None
            with pytest.raises(Refused, match="future revision"):
                await store.get(b"lib/a", revision=10**9)

    asyncio.run(scenario())


def test_many_operations_of_one_client_share_bundles(calm: Cluster) -> None:
    async def scenario() -> None:
        async with calm.client() as client:
            store = KV(client)
            await asyncio.gather(*(store.put(b"many/%d" % n, b"%d" % n) for n in range(1000)))
            found = await store.prefix(b"many/")
            assert {kv.key: kv.value for kv in found.kvs} == {
                b"many/%d" % n: b"%d" % n for n in range(1000)
            }

    asyncio.run(scenario())


def test_the_blocking_library_does_the_same(calm: Cluster) -> None:
    keys = calm.keys
    with SyncClient.connect(keys / "cluster.toml", keys / "client-0.pem") as client:
        store = SyncKV(client)
        revision = store.put(b"sync/a", b"1").revision
        store.put(b"sync/a", b"2")
        assert store.get(b"sync/a").value == b"2"
        assert store.get(b"sync/a", revision=revision).value == b"1"
        swap = (compare_value(b"sync/a", "==", b"2"),), (op_put(b"sync/b", b"3"),)
        assert store.txn(*swap).succeeded
        assert [kv.value for kv in store.range(b"sync/", b"sync0").kvs] == [b"2", b"3"]
        assert store.delete_range(b"sync/", b"sync0").deleted == 2
        assert client.status(0)["replica"] == 0


COUNT = """
import sys
from pathlib import Path
from client.transactions import compare_value, op_put
from pbft import SyncClient, SyncKV

keys = Path(sys.argv[1])
with SyncClient.connect(keys / "cluster.toml", keys / "client-0.pem") as client:
    store = SyncKV(client)
    for _ in range(int(sys.argv[2])):
        while True:
            seen = store.get(b"counter").value
            swap = compare_value(b"counter", "==", seen)
            if store.txn((swap,), (op_put(b"counter", b"%d" % (int(seen) + 1)),)).succeeded:
                break
"""


@pytest.mark.rule("R45")
def test_two_processes_share_one_client_key(calm: Cluster, kv: Kv) -> None:
    kv("put", "counter", "0")
    command = [sys.executable, "-c", COUNT, str(calm.keys), "40"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert kv("get", "counter") == "80\n"
