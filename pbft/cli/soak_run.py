"""The course of `pbft soak`: epochs of trouble, each followed by recovery and by every check."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import closing

from msgspec import Struct

from pbft.cli.laboratory import LOG, POLL_SECONDS, Laboratory, Watcher, until
from pbft.cli.soak_checks import CheckFailed, agree, check_evidence, well
from pbft.cli.soak_figures import Figures, allocated_bytes, memory_bytes
from pbft.cli.soak_load import Load
from pbft.cli.soak_log import LogReader
from pbft.cli.soak_plan import EPOCH_SECONDS, Act, Kind, Step, plan
from pbft.cli.soak_trouble import Trouble

RECOVERY_SECONDS = 90.0  # from the last trouble until everything must be as before
SETTLE_SECONDS = 5.0  # for one more checkpoint to be the same everywhere


class Orders(Struct, frozen=True):
    """What is wanted: the soak ends after `seconds` or `kills`, whichever comes first."""

    seed: int
    seconds: float | None
    kills: int | None
    wipe: bool


class Soak:
    """One run."""

    def __init__(
        self,
        lab: Laboratory,
        watcher: Watcher,
        load: Load,
        figures: Figures,
        orders: Orders,
    ) -> None:
        self._lab, self._watcher, self._load = lab, watcher, load
        self._figures, self._orders = figures, orders
        self._trouble = Trouble(lab, figures)

    async def run(self, moved: Callable[[], None], checked: Callable[[], None]) -> None:
        """Call `moved` whenever figures may differ, and `checked` after each epoch.

        Raises an ExceptionGroup of CheckFailed, CliError or ClientError if a check fails.
        """
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(self._watch(moved))]
            watching += [group.create_task(self._observe(r)) for r in self._lab.replicas]
            self._trouble.repair()
            await self._until("all replicas vote", self._all_well)
            while not self._over():
                await self._epoch(group)
                checked()
            for task in watching:
                task.cancel()

    async def _epoch(self, group: asyncio.TaskGroup) -> None:
        number = self._figures.epochs
        steps = plan(self._orders.seed, number, len(self._lab.replicas), wipe=self._orders.wipe)
        self._figures.working()
        working = group.create_task(self._load.work(number))
        await self._befall(steps)
        await self._recover(working)
        await self._check()

    def _over(self) -> bool:
        kills = self._orders.kills
        return self._left() <= 0 or (kills is not None and self._figures.killed >= kills)

    def _left(self) -> float:
        """Seconds until it ends."""
        if self._orders.seconds is None:
            return float("inf")
        return self._figures.began + self._orders.seconds - time.monotonic()

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        await until(what, holds, RECOVERY_SECONDS)

    # -- trouble, and its end

    async def _befall(self, steps: list[Step]) -> None:
        now = 0.0
        for step in [*steps, Step(EPOCH_SECONDS, Act.START, (), Kind.ONE)]:
            await asyncio.sleep(max(0.0, min(step.at - now, self._left())))
            if self._over():
                return
            now = step.at
            if step.act is Act.WIPE:
                await self._wipe(step.replicas[0])
            else:
                self._trouble.take(step)

    async def _wipe(self, replica: int) -> None:
        """Empty a disk while all others are well, and touch nothing until it is one of them."""
        self._trouble.repair()
        await self._until("all replicas are well before a disk is wiped", self._all_well)
        self._trouble.kill([replica], Kind.WIPED)
        shutil.rmtree(self._lab.data / f"replica-{replica}")
        self._figures.wipes += 1
        self._trouble.repair()
        await self._until(f"replica {replica}, whose disk was wiped, is back", self._all_well)

    async def _recover(self, working: "asyncio.Task[None]") -> None:
        self._trouble.repair()
        self._load.stop()
        _, waiting = await asyncio.wait([working], timeout=RECOVERY_SECONDS)
        if waiting:
            raise CheckFailed(
                f"all replicas run, and after {RECOVERY_SECONDS:.0f} s clients still wait"
            )
        await self._until("all replicas vote, and a quorum in one view", self._all_well)

    async def _all_well(self) -> bool:
        return well(await self._watcher.reports(), len(self._lab.replicas))

    # -- checks

    async def _check(self) -> None:
        await self._load.verify()
        await self._load.forget(self._figures.epochs)
        await self._until("equal states of all replicas", self._settled)
        reports = await self._watcher.reports()
        check_evidence(reports)
        alone = sum(not report["active"] for report in reports.values())
        self._figures.events["left-alone-in-a-higher-view"] += alone
        self._figures.memory.mark()
        self._figures.disk.mark()
        self._figures.epochs += 1

    async def _settled(self) -> bool:
        """One more checkpoint, and whether it is the same everywhere."""
        await self._load.settle(self._lab.config.parameters.checkpoint_interval + 1)
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if agree(await self._watcher.reports(), len(self._lab.replicas)):
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    # -- watching

    async def _watch(self, moved: Callable[[], None]) -> None:
        with closing(LogReader(self._lab.folder / LOG, self._figures.events)) as reader:
            while True:
                self._look(reader)
                moved()
                await asyncio.sleep(POLL_SECONDS)

    def _look(self, reader: LogReader) -> None:
        for replica, when in reader.take():
            if (took := when - self._trouble.started[replica]) > 0:  # else it was killed since
                self._figures.restarts.append(took)
        for replica, code in self._lab.processes.take_ended():
            raise CheckFailed(f"replica {replica} has ended by itself, with exit code {code}")
        self._figures.memory.sample(memory_bytes(self._lab.processes.pids))
        folders = {r: self._lab.data / f"replica-{r}" for r in self._lab.replicas}
        self._figures.disk.sample({r: allocated_bytes(path) for r, path in folders.items()})

    async def _observe(self, replica: int) -> None:
        """See how long after its start a replica votes, if it lives that long."""
        seen = 0.0
        while True:
            started = self._trouble.started.get(replica, 0.0)
            report = await self._watcher.ask(replica) if started > seen else None
            if report and report["voting"] and started == self._trouble.started[replica]:
                self._figures.votes.append(time.time() - started)
                seen = started
            await asyncio.sleep(POLL_SECONDS)
