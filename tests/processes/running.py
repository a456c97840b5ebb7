"""A cluster of real replica processes on this machine, and what a test may do to it."""

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from client.client import Client
from pbft.cli import laboratory
from pbft.cli.errors import CliError
from pbft.cli.laboratory import Report, Watcher
from pbft.cli.processes import ReplicaProcesses
from pbft.config_file import load_cluster

COMMAND = (sys.executable, "-m", "pbft.cli.main")
PORTS = range(10_000, 19_000)  # below those that outgoing connections are given
WAIT_SECONDS = 30.0
POLL_SECONDS = 0.05

Reports = dict[int, Report]


def pbft(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that are free now, found from a random one on."""
    for _ in range(100):
        base = random.choice(PORTS)
        with suppress(OSError):
            for port in range(base, base + count):
                socket.create_server(("127.0.0.1", port)).close()
            return base
    raise AssertionError("no free ports")


def make_keys(out: Path, replicas: int, *options: str) -> None:
    """Keys for a cluster on free ports of this machine."""
    ports = ("--base-port", str(free_ports(replicas)))
    made = pbft("keygen", "--replicas", str(replicas), *ports, *options, "--out", out)
    assert made.returncode == 0, made.stderr


class Cluster:
    """Some replicas, their folders, and a log file that all of them write to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys, self.data = folder, folder / "keys", folder / "data"
        self.config = load_cluster(self.keys / "cluster.toml")
        self.replicas = range(len(self.config.replicas))
        self.log = folder / "replicas.log"
        self._log = self.log.open("wb")
        self.processes = ReplicaProcesses(self.keys, self.data, None, self._log)

    def start(self, replicas: Iterable[int]) -> None:
        """Start these replicas."""
        for replica in replicas:
            self.processes.start(replica)

    def kill(self, replicas: Iterable[int]) -> None:
        """SIGKILL these replicas."""
        for replica in replicas:
            self.processes.kill(replica)

    def close(self) -> None:
        """Stop what still runs."""
        self.processes.stop_all()
        self._log.close()

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `pbft` in this cluster's folder, where `keys` is the default of --keys."""
        return pbft(*arguments, folder=self.folder)

    def client(self, name: str = "client-0", deadline: float = WAIT_SECONDS) -> Client:
        """A client, not yet open."""
        files = self.keys / "cluster.toml", self.keys / f"{name}.pem"
        return Client.connect(*files, deadline=deadline)

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[list[Client]]:
        """That many open clients, with sessions of their own under one key."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.client()) for _ in range(count)]


async def reports(client: Client, replicas: Iterable[int]) -> Reports:
    """What those that answer say of themselves."""
    return await Watcher(client, replicas).reports()


async def until(
    client: Client, replicas: Iterable[int], holds: Callable[[Reports], bool]
) -> Reports:
    """Ask again and again until what all `replicas` say fulfils `holds`."""
    wanted, found = list(replicas), Reports()

    async def satisfied() -> bool:
        nonlocal found
        found = await reports(client, wanted)
        return len(found) == len(wanted) and holds(found)

    try:
        await laboratory.until("what the test wants", satisfied, WAIT_SECONDS)
    except CliError as error:
        raise AssertionError(f"{error}; the last reports: {found}") from None
    return found


async def written(path: Path, text: str, times: int = 1) -> None:
    """Wait until the log at `path` has `text` that often."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (log := read(path)).count(text) < times:
        assert time.monotonic() < deadline, f"waited in vain for {text!r} in {log[-4000:]}"
        await asyncio.sleep(POLL_SECONDS)


def read(path: Path) -> str:
    """All that the log at `path` has so far."""
    return path.read_text()


def ready(found: Reports) -> bool:
    """All may vote, and are in one view."""
    views = {report["view"] for report in found.values()}
    return len(views) == 1 and voting(found) and all(r["active"] for r in found.values())


def voting(found: Reports) -> bool:
    """All may vote: a quorum knows that their disks have forgotten nothing."""
    return all(report["voting"] for report in found.values())


def executed(seq: int) -> Callable[[Reports], bool]:
    """All have executed up to this sequence number at least."""
    return lambda found: all(report["last_executed"] >= seq for report in found.values())


def foremost(found: Reports) -> int:
    """The highest sequence number that one of them has executed."""
    return max(int(report["last_executed"]) for report in found.values())


def in_view_above(view: int) -> Callable[[Reports], bool]:
    """All are in one view, above this one."""
    return lambda found: ready(found) and all(r["view"] > view for r in found.values())


def agree(found: Reports) -> bool:
    """All have executed the same, and have the same digest at the same stable checkpoint."""
    states = {
        (r["last_executed"], r["stable_checkpoint"], r["state_digest"], r["own_digest"])
        for r in found.values()
    }
    return len(states) == 1 and all(r["stable_checkpoint"] > 0 for r in found.values())
