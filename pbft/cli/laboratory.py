"""A cluster of this command's own, on loopback: for `pbft demo` and `pbft soak`."""

import asyncio
import random
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from msgspec.structs import replace

from client.client import Client
from client.errors import ClientError
from pbft.cli.connection import connect
from pbft.cli.errors import CliError
from pbft.cli.keygen import Plan, generate
from pbft.cli.processes import ReplicaProcesses
from pbft.config import ClusterConfig

LOG = "replicas.log"
POLL_SECONDS = 0.1
STATUS_SECONDS = 1.0
PORTS = range(20_000, 30_000)  # below those that outgoing connections are given
TRIES = 100

Report = dict[str, Any]


class Laboratory:
    """Keys, data, one log of all replicas, and their processes, below one folder."""

    def __init__(self, folder: Path, config: ClusterConfig, log: IO[bytes]) -> None:
        self.folder = folder
        self.keys, self.data = folder / "keys", folder / "data"
        self.config = config
        self.replicas = range(len(config.replicas))
        self.log = log
        self.processes = ReplicaProcesses(self.keys, self.data, None, log)

    @asynccontextmanager
    async def clients(self, count: int, deadline: float) -> AsyncIterator[list[Client]]:
        """That many open clients, each with a key of its own."""
        async with AsyncExitStack() as stack:
            names = [f"client-{number}" for number in range(count)]
            made = [connect(self.keys, name, deadline) for name in names]
            yield [await stack.enter_async_context(client) for client in made]


@contextmanager
def laboratory(folder: Path, plan: Plan) -> Iterator[Laboratory]:
    """Make the cluster of `plan` in `folder`, on free ports; in the end stop what still runs.

    Raises CliError.
    """
    config = generate(replace(plan, base_port=free_ports(plan.replicas)), folder / "keys")
    with (folder / LOG).open("wb", buffering=0) as log:
        made = Laboratory(folder, config, log)
        try:
            yield made
        finally:
            made.processes.stop_all()


def free_ports(count: int) -> int:
    """A base port such that `count` ports from there on are free now. Raises CliError."""
    for _ in range(TRIES):
        base = random.choice(PORTS[:-count])
        with suppress(OSError):
            for port in range(base, base + count):
                socket.create_server(("127.0.0.1", port)).close()
            return base
    raise CliError(f"no {count} free ports in a row on 127.0.0.1")


def last_lines(folder: Path, count: int) -> str:
    """What the replicas said last."""
    log = folder / LOG
    if not log.exists():
        return ""
    with log.open() as lines:
        return "".join(deque(lines, maxlen=count))


class Watcher:
    """Asks the replicas how they are."""

    def __init__(self, client: Client, replicas: Iterable[int]) -> None:
        self._client = client
        self._replicas = tuple(replicas)
        self.highest_view = 0

    async def reports(self) -> dict[int, Report]:
        """What those that answer say of themselves."""
        answers = await asyncio.gather(*map(self.ask, self._replicas))
        return {r: answer for r, answer in zip(self._replicas, answers, strict=True) if answer}

    async def ask(self, replica: int) -> Report | None:
        """What this one says of itself, if it answers."""
        try:
            report = await self._client.status(replica, deadline=STATUS_SECONDS)
        except ClientError:
            return None
        self.highest_view = max(self.highest_view, int(report["view"]))
        return report

    async def all_vote(self) -> bool:
        """Whether all answer, and may vote."""
        found = await self.reports()
        return len(found) == len(self._replicas) and all(r["voting"] for r in found.values())


async def until(what: str, holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until `holds`, which is asked again and again. Raises CliError in the end."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise CliError(f"waited {seconds:.0f} s for this in vain: {what}")
        await asyncio.sleep(POLL_SECONDS)
