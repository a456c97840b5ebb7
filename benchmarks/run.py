"""`make bench`: calibrate, measure a local cluster of four replicas, write docs/performance.md.

Each repetition starts a fresh cluster and measures every row once, so that what disturbs the
machine for a while disturbs all rows alike; the table shows medians and extremes.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import machine
import report
import uvloop
from msgspec import Struct
from rich.console import Console

from client.client import Client
from client.errors import ClientError
from pbft.cli.bench import KEY_SPACE, Load, client_names, run
from pbft.cli.errors import CliError
from pbft.cli.keygen import Plan, generate
from pbft.cli.processes import ReplicaProcesses
from pbft.config import ClusterConfig, Parameters
from pbft.config_keys import load_client_signer
from pbft.core.quorum import Quorum

REPLICAS = 4
CLIENT_KEYS = 64
PORTS = range(30_000, 32_000, 10)
START_SECONDS = 30.0


class Row(Struct, frozen=True):
    """One line of the table: a load, and whether the primary is killed under it."""

    name: str
    clients: int
    in_flight: int = 1
    reads: bool = False
    kill: bool = False
    key_space: int = KEY_SPACE

    def load(self, duration: float) -> Load:
        """As `pbft bench` takes it, with 100-byte values."""
        return Load(self.clients, self.in_flight, 100, duration, self.reads, self.key_space)


ROWS = (
    Row("1 client", 1),
    Row("16 clients", 16),
    Row("64 clients", 64),
    Row("8 clients, 64 in flight each", 8, 64),
    Row("fast read, 1 client", 1, reads=True),
    Row("16 clients, primary killed", 16, kill=True),  # the last one: a replica is gone then
)


@click.command()
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(1))
@click.option("--duration", default=8.0, show_default=True, help="Seconds of each measurement.")
@click.option("--page", default=report.PAGE, type=click.Path(path_type=Path))
@click.option(
    "--json",
    "figures",
    default=report.ROOT / "benchmarks" / "results" / "latest.json",
    type=click.Path(path_type=Path),
)
def main(repetitions: int, duration: float, page: Path, figures: Path) -> None:
    """Measure, print a table, and write it with its figures."""
    console = Console(width=report.WIDTH)
    busy = machine.load_per_core()
    if busy > machine.BUSY_LOAD:
        console.print("[bold red]The machine is busy: these figures are not worth publishing.")
    ticks, samples = machine.core_ticks(), []
    for number in range(repetitions):
        console.print(f"repetition {number + 1} of {repetitions}")
        samples.append(_repetition(duration))
    stolen = machine.stolen_share(ticks, machine.core_ticks())
    calibrations = [calibration for calibration, _ in samples]
    lines = [
        report.Line(row.name, row.kill, row.clients * row.in_flight, tuple(outcomes))
        for row, outcomes in zip(ROWS, zip(*(s for _, s in samples), strict=True), strict=True)
    ]
    command = f"make bench, {repetitions} repetitions of {duration:g} s"
    result = report.Result(machine.description(), command, busy, stolen, calibrations, lines)
    console.print(report.table(result, Quorum(REPLICAS)))
    report.write(result, Quorum(REPLICAS), page, figures)


def _repetition(duration: float) -> tuple[machine.Calibration, list[report.Sample]]:
    calibration = machine.calibrate()
    with (
        tempfile.TemporaryDirectory(prefix="pbft-bench-") as folder,
        running_cluster(Path(folder)) as cluster,
    ):
        return calibration, [cluster.measure(row, duration) for row in ROWS]


class Cluster:
    """Replicas that run on this machine."""

    def __init__(self, config: ClusterConfig, keys: Path, processes: ReplicaProcesses) -> None:
        self._config = config
        self._keys = keys
        self._names = client_names(config, keys)
        self._processes = processes

    def measure(self, row: Row, duration: float) -> report.Sample:
        """Put the row's load on."""
        before = self._processor_time()
        outcome = uvloop.run(self._run(row, duration))
        spent = None if row.kill else self._processor_time() - before
        return report.Sample(outcome, spent)

    def _processor_time(self) -> float:
        return sum(map(machine.cpu_seconds, self._processes.pids.values()))

    def processor_times(self, replicas: Iterable[int]) -> dict[int, float]:
        """What those of these replicas that run have used so far (s), by their process numbers."""
        pids = self._processes.running()
        return {pids[r]: machine.cpu_seconds(pids[r]) for r in replicas if r in pids}

    def runs(self, replica: int) -> bool:
        """Whether it was started and not killed."""
        return replica in self._processes.running()

    def start(self, replica: int) -> None:
        """Start it on its data."""
        self._processes.start(replica)

    def set_priority(self, replica: int, nice: int) -> None:
        """From 0, as usual, to 19, the least."""
        pid = self._processes.running()[replica]
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        session = Path(f"/proc/{pid}/autogroup")  # Linux shares out time between sessions first
        if session.exists():
            session.write_text(str(nice))

    def kill(self, replica: int) -> None:
        """SIGKILL."""
        self._processes.kill(replica)

    async def _run(self, row: Row, duration: float) -> Any:
        running = run(row.load(duration), self._config, self._keys, self._names)
        if not row.kill:
            return await running
        outcome, _ = await asyncio.gather(running, self._kill_primary(duration / 2))
        return outcome

    async def _kill_primary(self, after: float) -> None:
        await asyncio.sleep(after)  # half-way through the load: the moment is the point
        async with self.client() as client:
            primary = (await client.status(1))["primary"]
        self._processes.kill(primary)

    def client(self, number: int = 0) -> Client:
        """A client with the key of that number, not yet open."""
        name = self._names[number]
        return Client(self._config, load_client_signer(self._config, self._keys, name))

    async def until_ready(self) -> None:
        """Wait until every replica votes. Raises CliError."""
        deadline = time.monotonic() + START_SECONDS
        async with self.client() as client:
            while not await self._all_vote(client):
                if time.monotonic() > deadline:
                    raise CliError("the replicas do not start")
                await asyncio.sleep(0.1)

    async def _all_vote(self, client: Client) -> bool:
        try:
            reports = [await client.status(i, deadline=1.0) for i in range(REPLICAS)]
        except ClientError:
            return False
        return all(each["voting"] for each in reports)


@contextlib.contextmanager
def running_cluster(folder: Path, parameters: Parameters | None = None) -> Iterator[Cluster]:
    """Four replicas with their keys and data in `folder`, which vote; at the end they are gone."""
    plan = Plan(
        replicas=REPLICAS,
        clients=CLIENT_KEYS,
        base_port=_free_ports(),
        parameters=parameters or Parameters(),
    )
    config = generate(plan, folder / "keys")
    with (folder / "replicas.log").open("wb") as log:
        processes = ReplicaProcesses(folder / "keys", folder / "data", None, log)
        try:
            for replica in range(REPLICAS):
                processes.start(replica)
            cluster = Cluster(config, folder / "keys", processes)
            uvloop.run(cluster.until_ready())
            yield cluster
        finally:
            processes.stop_all()


def _free_ports() -> int:
    for base in PORTS:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + REPLICAS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise CliError("no four free ports in a row on 127.0.0.1")


if __name__ == "__main__":
    main()
