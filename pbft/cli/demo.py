"""`pbft demo`: a cluster under load that loses its primary, carries a liar, and holds."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from client.client import DEFAULT_DEADLINE, Client
from pbft.cli.demo_load import LoadClient
from pbft.cli.errors import CliError
from pbft.cli.keygen import Plan
from pbft.cli.laboratory import Laboratory, Report, Watcher, laboratory, last_lines, until
from pbft.core.quorum import Quorum
from pbft.simulation.linearizability import Verdict, check

REPLICAS = 4
WAIT_SECONDS = 30.0


@click.command(name="demo")
@click.option(
    "--clients",
    default=8,
    show_default=True,
    type=click.IntRange(1, 32),
    help="How many clients work at once.",
)
@click.option(
    "--operations",
    default=6000,
    show_default=True,
    type=click.IntRange(400),
    help="How many operations all of them do.",
)
def demo(clients: int, operations: int) -> None:
    """Run four replicas through a crash of the primary, a liar and an equivocating primary."""
    with tempfile.TemporaryDirectory(prefix="pbft-demo-") as folder:
        try:
            failures = uvloop.run(_demo(Path(folder), clients, operations))
            if failures:
                raise CliError("the demo failed: " + "; ".join(failures))
        except CliError:
            click.echo(last_lines(Path(folder), 3 * REPLICAS), err=True, nl=False)
            raise
        except asyncio.CancelledError:
            raise CliError("the demo was told to stop") from None


async def _demo(folder: Path, clients: int, operations: int) -> list[str]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    plan = Plan(replicas=REPLICAS, clients=clients + 1, lab=True)
    with laboratory(folder, plan) as lab:
        for replica in lab.replicas:
            lab.processes.start(replica, "equivocate", dormant=True)
        async with lab.clients(clients + 1, DEFAULT_DEADLINE) as (watcher, *connected):
            return await Demo(Console(), lab, watcher, connected, operations).run()


class Demo:
    """The story, stage by stage."""

    def __init__(
        self,
        console: Console,
        lab: Laboratory,
        watcher: Client,
        clients: list[Client],
        operations: int,
    ) -> None:
        self._console = console
        self._quorum = Quorum(REPLICAS).q
        self._processes = lab.processes
        self._watcher = Watcher(watcher, lab.replicas)
        self._done = 0
        self._told = False
        self._moved = asyncio.Event()
        self._total = operations // len(clients) * len(clients)
        self._load = [LoadClient(i, client, self._count) for i, client in enumerate(clients)]
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("operations", total=self._total)

    def _count(self) -> None:
        self._done += 1
        self._progress.update(self._task, completed=self._done, total=max(self._done, self._total))
        self._moved.set()

    async def run(self) -> list[str]:
        """Everything; returns what failed."""
        started = time.monotonic()
        with self._progress:
            each = self._total // len(self._load)
            await self._until("all replicas answer", self._watcher.all_vote)
            load = [asyncio.create_task(self._work(client, each)) for client in self._load]
            faulty = await self._story()
            self._told = True
            await asyncio.gather(*load)
            await self._load[0].read_all()
        failures = await self._check(faulty)
        self._report(failures, time.monotonic() - started)
        return failures

    async def _work(self, client: LoadClient, operations: int) -> None:
        """At least that many, and on until the story is told: without load nothing happens."""
        await client.run(operations)
        while not self._told:
            await client.run(1)

    async def _story(self) -> int:
        await self._another(0.15)
        primary = await self._primary()
        view = await self._view()
        self._tell(f"killing the primary, replica {primary}, with SIGKILL")
        self._processes.kill(primary)
        await self._until("a view change", lambda: self._view_above(view))
        self._tell(f"the others are in view {await self._view()}; restarting replica {primary}")
        await self._another(0.15)
        self._processes.start(primary, "equivocate", dormant=True)
        await self._until("it caught up", lambda: self._caught_up(primary))
        leader = await self._primary()
        liar = next(r for r in range(REPLICAS) if r not in (leader, primary))
        self._tell(f"replica {primary} has caught up; replica {liar}, a backup, becomes a liar")
        self._processes.stop(liar)
        self._processes.start(liar, "lie")
        await self._another(0.2)
        self._tell(f"replica {liar} becomes honest again")
        self._processes.stop(liar)
        self._processes.start(liar, "equivocate", dormant=True)
        await self._until("it caught up", lambda: self._caught_up(liar))
        await self._another(0.1)
        primary, view = await self._primary(), await self._view()
        self._tell(f"the primary, replica {primary}, proposes other batches to each backup")
        self._processes.toggle(primary)
        await self._until("a view change", lambda: self._view_above(view))
        self._tell(f"the others are in view {await self._view()}")
        return primary

    def _tell(self, text: str) -> None:
        self._progress.console.print(f"[bold]{self._done:>6}[/bold]  {text}")

    async def _another(self, part: float) -> None:
        """Wait until one more such part of all operations is done."""
        wanted = self._done + part * self._total
        while self._done < wanted:
            self._moved.clear()
            await self._moved.wait()

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        await until(what, holds, WAIT_SECONDS)

    # -- looking at the cluster

    async def _status(self) -> dict[int, Report]:
        return await self._watcher.reports()

    async def _view(self) -> int:
        """The view that a quorum has entered, or 0."""
        reports = await self._status()
        views = sorted((r["view"] for r in reports.values() if r["active"]), reverse=True)
        agreed = [view for view in views if views.count(view) >= self._quorum]
        return int(agreed[0]) if agreed else 0

    async def _view_above(self, view: int) -> bool:
        return await self._view() > view

    async def _primary(self) -> int:
        return await self._view() % REPLICAS

    async def _caught_up(self, replica: int) -> bool:
        reports = await self._status()
        report = reports.pop(replica, None)
        if report is None or not reports or not report["voting"]:
            return False
        return bool(report["last_executed"] >= min(r["last_executed"] for r in reports.values()))

    # -- the verdict

    async def _check(self, faulty: int) -> list[str]:
        failures = []
        history = [operation for client in self._load for operation in client.history]
        judgement = check(history)
        if judgement.verdict is not Verdict.LINEARIZABLE:
            failures.append(f"the history is not proven linearizable: {judgement}")
        self._unknown = sum(operation.reply is None for operation in history)
        self._correct = [replica for replica in range(REPLICAS) if replica != faulty]
        try:
            await self._until("equal states of all correct replicas", self._states_agree)
        except CliError as error:
            failures.append(str(error))
        return failures

    async def _states_agree(self) -> bool:
        reports = await self._status()
        if any(replica not in reports for replica in self._correct):
            return False
        correct = [reports[replica] for replica in self._correct]
        self._digests = {
            (r["last_executed"], r["stable_checkpoint"], r["own_digest"]) for r in correct
        }
        return len(self._digests) == 1

    def _report(self, failures: list[str], seconds: float) -> None:
        latencies = sorted(took for client in self._load for _, took in client.latencies)
        ends = sorted(ended for client in self._load for ended, _ in client.latencies)
        pause = max(later - earlier for earlier, later in pairwise(ends))
        table = Table(show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in (
            ("operations", f"{len(latencies)} acknowledged, {self._unknown} of unknown outcome"),
            ("latency p50", f"{latencies[len(latencies) // 2] / 1000:.1f} ms"),
            ("latency p99", f"{latencies[len(latencies) * 99 // 100] / 1000:.1f} ms"),
            ("view changes", str(self._watcher.highest_view)),
            ("longest pause", f"{pause / 1e6:.2f} s"),
            ("duration", f"{seconds:.1f} s"),
            *((f"state after {seq}", digest) for _, seq, digest in sorted(self._digests)),
            ("verdict", "FAILED" if failures else "every check holds"),
        ):
            table.add_row(name, value)
        self._console.print(table)
