"""State transfer under full write load: how long it takes, and what it costs the others.

A replica is killed, the state is filled behind its back, clients go on writing, and the replica is
started again. Printed: throughput and the serving replicas' processor time before, during and after
the transfer, all in one run.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import click
import machine
import msgspec
import uvloop
from msgspec import Struct
from run import REPLICAS, Cluster, running_cluster

from client.client import Client
from client.errors import ClientError
from client.kv import KV

LATE = 3
FILLERS, FILL_IN_FLIGHT = 8, 16
LOADERS = 8
KEYS = 20_000  # that the load writes to
PAUSE_S = 0.05
SHOWN = ("state-transfer", "view-change-started", "view-entered", "stopped", "replica-started")
LIMIT_S = 900.0  # of one wait


class Plan(Struct, frozen=True):
    """What to do: fill with `megabytes` of values of `size` bytes, and load with `in_flight`."""

    megabytes: int
    size: int
    in_flight: int
    load_size: int
    seconds: float  # of each measurement before and after
    kill_primary: bool
    kill_late: int  # times that the fetching replica is killed and started again on the way
    late_nice: int  # at which it runs: with cores of its own it would take none from the others


class Phase(Struct, frozen=True):
    """What was measured in one stretch of time."""

    name: str
    seconds: float
    operations_per_second: float
    serving_cpu: float  # cores, per serving replica
    serving_cpu_us_per_operation: float  # of one serving replica
    late_cpu: float  # cores, of the replica that is late


class Meter:
    """Counts operations, and reads processor times."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.done = 0
        self._serving = [r for r in range(REPLICAS) if r != LATE]

    def _now(self) -> tuple[float, int, dict[int, float], dict[int, float]]:
        serving = self._cluster.processor_times(self._serving)
        return time.perf_counter(), self.done, serving, self._cluster.processor_times([LATE])

    @contextlib.asynccontextmanager
    async def phase(self, name: str, phases: list[Phase]) -> Any:
        """Measure the block."""
        began, done, spent, late = self._now()
        yield
        ended, done_now, spent_now, late_now = self._now()
        seconds, operations = ended - began, done_now - done
        cpu = _mean(spent, spent_now)
        phases.append(
            Phase(
                name,
                round(seconds, 1),
                round(operations / seconds),
                round(cpu / seconds, 3),
                round(1e6 * cpu / max(operations, 1)),
                round(_mean(late, late_now) / seconds, 3),
            )
        )


def _mean(before: dict[int, float], now: dict[int, float]) -> float:
    """What the processes that have not been killed meanwhile have used, on the average (s)."""
    spent = [used - before.get(pid, 0.0) for pid, used in now.items()]
    return sum(spent) / max(len(spent), 1)


@click.command()
@click.option("--megabytes", default=100, show_default=True, help="Of values in the state.")
@click.option("--size", default=1024, show_default=True, help="Bytes of each of these values.")
@click.option("--in-flight", default=16, show_default=True, help="Of each of 8 loading clients.")
@click.option("--load-size", default=100, show_default=True, help="Bytes of the values they put.")
@click.option("--seconds", default=15.0, show_default=True, help="Before and after.")
@click.option("--kill-primary", is_flag=True, help="Three seconds after the transfer's start.")
@click.option("--kill-late", default=0, help="How often the fetching replica is killed meanwhile.")
@click.option("--late-nice", default=0, help="Priority of the fetching replica: 19 is the least.")
def main(**options: Any) -> None:
    """Run one scenario and print its figures as JSON."""
    plan = Plan(**options)
    with (
        tempfile.TemporaryDirectory(prefix="pbft-transfer-") as folder,
        running_cluster(Path(folder)) as cluster,
    ):
        figures = uvloop.run(_scenario(cluster, plan))
        figures["state_file_mb"] = _file_sizes(Path(folder))
        figures["log"] = [
            line
            for line in (Path(folder) / "replicas.log").read_text().splitlines()
            if any(event in line for event in SHOWN)
        ]
    result = {"machine": machine.description(), "cores": machine.core_count(), "plan": plan}
    click.echo(msgspec.json.format(msgspec.json.encode(result | figures)))


def _file_sizes(folder: Path) -> dict[str, int]:
    files = sorted(folder.glob("data/replica-*/*/data.mdb"))
    return {
        str(file.parent.relative_to(folder / "data")): file.stat().st_blocks * 512 >> 20
        for file in files
    }


async def _scenario(cluster: Cluster, plan: Plan) -> dict[str, Any]:
    cluster.kill(LATE)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(cluster.client(n)) for n in range(LOADERS)]
        watcher = await stack.enter_async_context(cluster.client(LOADERS))
        began = time.perf_counter()
        await _fill([KV(client) for client in clients], plan)
        filled = round(time.perf_counter() - began, 1)
        meter, phases = Meter(cluster), list[Phase]()
        tasks = [
            asyncio.create_task(_load(KV(client), plan, meter, Random(f"{n}/{lane}")))
            for n, client in enumerate(clients)
            for lane in range(plan.in_flight)
        ]
        await asyncio.sleep(2)
        async with meter.phase("before, three replicas", phases):
            await asyncio.sleep(plan.seconds)
        watch = Watch(cluster, watcher, plan)
        async with meter.phase("fetching", phases):
            await watch.until_fetched()
        async with meter.phase("catching up", phases):
            await watch.until_level()
        async with meter.phase("after, four replicas", phases):
            await asyncio.sleep(plan.seconds)
        counters = {n: (await watcher.status(n))["counters"] for n in _alive(cluster)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "filled_in_s": filled,
        "back_after_s": watch.seen[-1]["at"],
        "phases": phases,
        "progress": watch.seen,
        "counters": {
            n: {k: v for k, v in found.items() if "state" in k or "send" in k or "repair" in k}
            for n, found in counters.items()
        },
    }


def _alive(cluster: Cluster) -> list[int]:
    return [replica for replica in range(REPLICAS) if cluster.runs(replica)]


async def _fill(stores: list[KV], plan: Plan) -> None:
    count = plan.megabytes * 1_000_000 // plan.size
    numbers = iter(range(count))
    random = Random(0)

    async def lane(store: KV) -> None:
        for number in numbers:
            await store.put(b"fill/%08d" % number, random.randbytes(plan.size))

    await asyncio.gather(*(lane(store) for store in stores for _ in range(FILL_IN_FLIGHT)))


async def _load(store: KV, plan: Plan, meter: Meter, random: Random) -> None:
    while True:
        key = b"load/%06d" % random.randrange(KEYS)
        try:
            await store.put(key, random.randbytes(plan.load_size))
        except ClientError:
            await asyncio.sleep(PAUSE_S)
        else:
            meter.done += 1


class Watch:
    """Starts the late replica, asks how far it is, and kills on the way who is to be killed."""

    def __init__(self, cluster: Cluster, watcher: Client, plan: Plan) -> None:
        self._cluster = cluster
        self._watcher = watcher
        self._nice = plan.late_nice
        self._kills = [3.0 * (number + 1) for number in range(plan.kill_late)]
        self._primary_at = 3.0 if plan.kill_primary else None
        self._foremost = 0
        self.seen: list[dict[str, Any]] = []
        self._start()
        self._began = time.perf_counter()

    def _start(self) -> None:
        self._cluster.start(LATE)
        if self._nice:
            self._cluster.set_priority(LATE, self._nice)

    async def until_fetched(self) -> None:
        """Until the state has come, and whoever is to be killed has been."""
        async for late in self._looks():
            up = not self._kills and self._primary_at is None
            if up and late["transfer"] is None and late["last_executed"]:
                return

    async def until_level(self) -> None:
        """Until it has executed what the others had a moment before, and may vote."""
        async for late in self._looks():
            level = 0 < self._foremost <= late["last_executed"]
            if late["voting"] and late["transfer"] is None and level:
                return

    async def _looks(self) -> AsyncIterator[dict[str, Any]]:
        """What the late replica says of itself, every now and then."""
        while (passed := time.perf_counter() - self._began) < LIMIT_S:
            await self._kill(passed)
            late = await _status(self._watcher, LATE)
            if late:
                self.seen.append(
                    {
                        "at": round(passed, 1),
                        "executed": late["last_executed"],
                        "others": self._foremost,
                        "stable": late["stable_checkpoint"],
                        "transfer": late["transfer"],
                    }
                )
                yield late
            others = [await _status(self._watcher, r) for r in _alive(self._cluster) if r != LATE]
            self._foremost = max((found["last_executed"] for found in others if found), default=0)
            await asyncio.sleep(0.2)
        raise click.ClickException(f"not there after {LIMIT_S:g} s; seen last: {self.seen[-1:]}")

    async def _kill(self, passed: float) -> None:
        if self._kills and passed > self._kills[0]:
            self._kills.pop(0)
            self._cluster.kill(LATE)
            self._start()
        if self._primary_at and passed > self._primary_at:
            self._primary_at = None
            self._cluster.kill((await self._watcher.status((LATE + 1) % REPLICAS))["primary"])


async def _status(watcher: Client, replica: int) -> dict[str, Any] | None:
    try:
        return await watcher.status(replica, deadline=2.0)
    except ClientError:
        return None


if __name__ == "__main__":
    main()
