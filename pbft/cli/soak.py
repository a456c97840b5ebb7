"""`pbft soak`: real processes, killed and stopped again and again while clients write."""

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path
from typing import IO, Any

import click
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console

from client.errors import ClientError
from pbft.cli.errors import CliError, Interrupted
from pbft.cli.keygen import Plan
from pbft.cli.laboratory import LOG, Watcher, laboratory
from pbft.cli.options import folder_option
from pbft.cli.soak_checks import CheckFailed
from pbft.cli.soak_figures import Figures, table
from pbft.cli.soak_load import Load
from pbft.cli.soak_run import Orders, Soak
from pbft.config import Parameters
from pbft.messages import MAX_REPLICAS

CLIENTS = 8
DEADLINE = 300.0  # seconds; of an operation that trouble delays, and that must have an outcome
MINUTES = 10.0  # where no end is given
REPORT = click.File("wb", lazy=False)  # one that cannot be written is refused at the beginning
PARAMETERS = Parameters(checkpoint_interval=16, window=64)  # so a replica is soon left behind


class Result(Struct):
    """How it ended: with a failure, by an interrupt, or well; and what was measured."""

    figures: Figures
    failures: list[str]
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.failures:
            return "FAILED"
        return "interrupted" if self.interrupted else "every check holds"


@click.command(name="soak")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the trouble."
)
@click.option("--minutes", type=click.FloatRange(0, 100_000, min_open=True), help="When it ends.")
@click.option("--kills", type=click.IntRange(1), help="After how many kills it ends.")
@click.option(
    "--replicas",
    default=4,
    show_default=True,
    type=click.IntRange(4, MAX_REPLICAS),
    help="How many replicas there are.",
)
@click.option("--wipe", is_flag=True, help="Empty a replica's disk now and then, too.")
@folder_option("--data", "A new folder for everything; else a temporary one.", required=False)
@click.option("--report", type=REPORT, metavar="FILE", help="Write all figures there, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def soak(
    seed: int,
    minutes: float | None,
    kills: int | None,
    replicas: int,
    wipe: bool,
    data: Path | None,
    report: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Kill, stop and restart replicas while clients write, and check everything.

    It ends after --minutes or --kills, whichever comes first; after ten minutes if neither is
    given. The seed fixes what is done to whom and when, not how fast processes get on. If a check
    fails, keys, data and log are kept.
    """
    if minutes is None and kills is None:
        minutes = MINUTES
    orders = Orders(seed, None if minutes is None else 60 * minutes, kills, wipe)
    folder = _folder(data)
    result = _run(folder, replicas, orders)
    figures = {
        "verdict": result.verdict,
        "failures": result.failures,
        "seed": seed,
        "replicas": replicas,
        **result.figures.as_json(),
    }
    if report is not None:
        report.write(_json(figures) + b"\n")
    if as_json:
        click.echo(_json(figures))
    else:
        Console().print(table(figures, result.verdict))
    if data is None and not result.failures:
        shutil.rmtree(folder)
    if result.failures:
        raise CliError(
            f"the soak failed: {'; '.join(result.failures)}; "
            f"keys, data and {LOG} are kept in {folder}"
        )
    if result.interrupted:
        raise Interrupted(f"interrupted after {result.figures.killed} kills; nothing has failed")


def _json(figures: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(figures))


def _folder(data: Path | None) -> Path:
    """An empty folder. Raises CliError, OSError."""
    if data is None:
        return Path(tempfile.mkdtemp(prefix="pbft-soak-"))
    data.mkdir(parents=True, exist_ok=True)
    if any(data.iterdir()):
        raise CliError(f"{data} is not empty: give --data a new folder")
    return data


def _run(folder: Path, replicas: int, orders: Orders) -> Result:
    result = Result(Figures(), [])
    try:
        uvloop.run(_soak(folder, replicas, orders, result.figures))
    except* (CheckFailed, CliError, ClientError) as group:
        result.failures += [" ".join(str(error).split()) for error in _flat(group)]
    except* (KeyboardInterrupt, asyncio.CancelledError):
        result.interrupted = True
    return result


def _flat(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [error for inner in group.exceptions for error in _flat(inner)]
    return [group]


async def _soak(folder: Path, replicas: int, orders: Orders, figures: Figures) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    plan = Plan(replicas=replicas, clients=CLIENTS + 1, parameters=PARAMETERS)
    console = Console(stderr=True)
    with laboratory(folder, plan) as lab, console.status("starting") as status:
        async with lab.clients(CLIENTS + 1, DEADLINE) as (watcher, *clients):
            load = Load(clients, orders.seed, figures.done)
            figures.actions = load.operations
            run = Soak(lab, Watcher(watcher, lab.replicas), load, figures, orders)
            await run.run(lambda: status.update(_line(figures)), lambda: _tell(console, figures))


def _tell(console: Console, figures: Figures) -> None:
    text = f"epoch {figures.epochs}: every check holds after {_line(figures)}"
    console.print(text, soft_wrap=True)


def _line(figures: Figures) -> str:
    return (
        f"{figures.killed} kills, {figures.operations} operations, "
        f"longest pause {figures.longest_pause:.1f} s"
    )
