"""`pbft cluster`: it starts all replicas, stops all of them, and restarts none."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client.errors import Refused
from client.kv import KV
from tests.processes.running import COMMAND, Cluster, make_keys, ready, until, written


class Command:
    """A running `pbft cluster`, and its replicas."""

    def __init__(self, cluster: Cluster, *options: str) -> None:
        self.cluster = cluster
        command = [*COMMAND, "cluster", "--data", "data", *options]
        self.log = cluster.folder / "cluster.log"
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(command, cwd=cluster.folder, stderr=self._output)

    def pid(self, replica: int) -> int:
        """The process that holds this replica's data directory."""
        lock = self.cluster.data / f"replica-{replica}" / "in-use.lock"
        return int(lock.read_text())

    def runs(self, replica: int) -> bool:
        """Whether that process is still there."""
        try:
            os.kill(self.pid(replica), 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self, number: signal.Signals) -> None:
        """It stops at this signal, and no replica is left."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=20) == 0
        assert not any(self.runs(replica) for replica in self.cluster.replicas)

    def close(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        self.process.kill()
        self.process.wait()
        for replica in self.cluster.replicas:
            with suppress(ProcessLookupError, FileNotFoundError):
                os.kill(self.pid(replica), signal.SIGKILL)
        self._output.close()


@contextmanager
def cluster_command(folder: Path, *options: str) -> Iterator[Command]:
    """`pbft cluster` with these options, once all of its replicas take part."""
    make_keys(folder / "keys", 4, "--lab")
    cluster = Cluster(folder)
    command = Command(cluster, *options)

    async def wait() -> None:
        async with cluster.client() as client:
            await until(client, cluster.replicas, ready)

    try:
        asyncio.run(wait())
        yield command
        assert "Traceback" not in command.log.read_text()
    finally:
        command.close()
        cluster.close()


def test_ctrl_c_stops_all_replicas(tmp_path: Path) -> None:
    with cluster_command(tmp_path) as command:
        assert command.cluster.cli("kv", "put", "color", "blue").returncode == 0
        command.stop(signal.SIGINT)
        status = command.cluster.cli("status", "--timeout", "0.5")
        assert status.returncode == 1
        assert status.stdout.count(" no ") == 4


def test_it_restarts_no_replica(tmp_path: Path) -> None:
    with cluster_command(tmp_path) as command:
        os.kill(command.pid(1), signal.SIGKILL)

        async def scenario() -> None:
            await written(command.log, "replica 1 has ended by signal 9")
            async with command.cluster.client() as client:
                for number in range(20):
                    await KV(client).put(b"color", b"%d" % number)

        asyncio.run(scenario())
        assert command.cluster.cli("kv", "get", "color").stdout == "19\n"
        found = json.loads(command.cluster.cli("status", "--timeout", "1", "--json").stdout)
        assert [report["reachable"] for report in found] == [True, False, True, True]
        assert not command.runs(1)
        command.stop(signal.SIGTERM)


def test_it_ends_when_no_replica_is_left(calm: Cluster) -> None:
    again = calm.cli("cluster", "--data", "data")
    assert again.returncode == 1
    assert again.stderr.count("is in use by process") == 4
    assert again.stderr.count("has ended with exit code 1") == 4
    assert again.stderr.endswith(
        "pbft: no replica runs any more: what each of them said last tells why\n"
    )


@pytest.mark.rule("R13")
def test_a_liar_among_four_is_never_believed(tmp_path: Path) -> None:
    with cluster_command(tmp_path, "--faulty", "2=lie") as command:

        async def scenario() -> int:
            async with command.cluster.client() as client:
                kv = KV(client)
                for number in range(50):
                    value = b"%d" % number
                    await kv.put(b"color", value)
                    assert (await kv.get(b"color", ordered=bool(number % 2))).value == value
                assert {found.replica for found in client.suspicions} <= {2}
                report = await client.status(2)
                return int(report["counters"]["faulty-lie"])

        assert asyncio.run(scenario()) > 50
        assert command.cluster.cli("kv", "get", "color").stdout == "49\n"


SUM = """
from pbft import Context, ReadableState, Refused, State, StateMachine


class Sum(StateMachine):
    def apply(self, state: State, operation: bytes, context: Context) -> bytes:
        if not operation.isdigit():
            raise Refused("only numbers can be added")
        state.put(b"sum", b"%d" % (int(self.query(state, b"")) + int(operation)))
        return self.query(state, b"")

    def query(self, state: ReadableState, operation: bytes) -> bytes:
        return state.get(b"sum") or b"0"
"""


def test_it_runs_an_application_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "total.py").write_text(SUM)
    (tmp_path / "client.py").write_text("raise SystemExit('the wrong client')")
    with cluster_command(tmp_path, "--app", "total:Sum") as command:

        async def scenario() -> None:
            async with command.cluster.client() as client:
                assert await client.submit(b"40") == b"40"
                assert await client.submit(b"2") == b"42"
                assert await client.query(b"") == b"42"
                with pytest.raises(Refused, match="only numbers can be added"):
                    await client.submit(b"x")

        asyncio.run(scenario())
        ended = command.cluster.cli("kv", "get", "color")
        assert ended.returncode == 1
        assert ended.stderr == "pbft: the cluster's application is not the key-value store\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--faulty", "2"), "--faulty wants REPLICA=MODE, for instance 2=lie, not '2'"),
        (("--faulty", "x=lie"), "--faulty wants REPLICA=MODE, for instance 2=lie, not 'x=lie'"),
        (("--faulty", "²=lie"), "--faulty wants REPLICA=MODE, for instance 2=lie, not '²=lie'"),
        (("--faulty", "4=lie"), "--faulty 4=lie: there are only replicas 0 to 3"),
        (("--faulty", "2=nap"), "there is no faulty mode 'nap'"),
        (("--faulty", "2=lie", "--faulty", "2=mute"), "for both modes give 2=lie+mute"),
        (("--app", "nowhere:Application"), "cannot be loaded: No module named 'nowhere'"),
        (("--keys", "nowhere"), "nowhere/cluster.toml: there is no such file"),
    ],
)
def test_it_starts_nothing_where_it_cannot_start_all(
    laboratory: Cluster, options: tuple[str, ...], reason: str
) -> None:
    ended = laboratory.cli("cluster", "--data", "data", *options)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pbft: ")
    assert ended.stderr.count("\n") == 1
    assert reason in ended.stderr
    assert not laboratory.data.exists()


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of which nothing runs."""
    folder = tmp_path_factory.mktemp("laboratory")
    make_keys(folder / "keys", 4, "--lab")
    cluster = Cluster(folder)
    yield cluster
    cluster.close()
