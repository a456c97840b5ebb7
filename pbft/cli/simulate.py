"""`pbft simulate`: whole clusters on virtual time, from seeds."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

import click
from msgspec import Struct

from pbft.cli.crash_points import crash_points
from pbft.cli.errors import CliError, Interrupted
from pbft.cli.processes import parse_faulty
from pbft.cli.workers import run_all, watched
from pbft.core.quorum import Quorum
from pbft.faults.modes import UnknownMode, check_modes
from pbft.messages import MAX_REPLICAS
from pbft.simulation.runner import Outcome, run
from pbft.simulation.scenario import scenario_of

REPLICAS = 4  # where --faulty names some of them, and --replicas is not given


class Task(Struct, frozen=True):
    """A seed, and what the command line has instead of the seed's own choice."""

    seed: int
    replicas: int | None
    faulty: tuple[tuple[int, str], ...] | None

    @property
    def command(self) -> str:
        """What to type to see it again."""
        size = f" --replicas {self.replicas}" if self.replicas is not None else ""
        faulty = "".join(f" --faulty {number}={modes}" for number, modes in self.faulty or ())
        return f"pbft simulate --seed {self.seed}{size}{faulty}"


class Tally:
    """What has come of the seeds so far."""

    def __init__(self) -> None:
        self.seeds = 0
        self.failed: list[tuple[Task, tuple[str, ...]]] = []
        self._outcomes: list[Outcome] = []

    def add(self, task: Task, outcome: Outcome) -> None:
        """Count the outcome of one seed."""
        self.seeds += 1
        self._outcomes.append(outcome)
        if outcome.failures:
            self.failed.append((task, outcome.failures))

    def report(self) -> Iterator[str]:
        """Every failure with the command that replays it, then one line about all seeds."""
        for task, failures in sorted(self.failed, key=lambda entry: entry[0].seed):
            for failure in failures:
                yield f"seed {task.seed} FAILED: {failure}"
            yield f"replay it with: {task.command}"
        yield (
            f"{_count(self.seeds, 'seed')}, {_count(len(self.failed), 'failure')}, "
            f"{_count(sum(o.highest_view for o in self._outcomes), 'view change')}, "
            f"{_count(sum(o.operations for o in self._outcomes), 'operation')}, "
            f"{sum(o.virtual_seconds for o in self._outcomes):.1f} virtual seconds"
        )


@click.group(name="simulate", invoke_without_command=True)
@click.option("--seed", type=click.IntRange(min=0), help="Run this one seed.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run this many seeds, on all cores.")
@click.option("--first", type=click.IntRange(min=0), help="The first of --seeds.  [default: 1]")
@click.option("--replicas", type=click.IntRange(4, MAX_REPLICAS), help="Instead of the seed's own.")
@click.option(
    "--faulty",
    multiple=True,
    metavar="REPLICA=MODE",
    help=f"Instead of the seed's own; then there are {REPLICAS} replicas if not said otherwise.",
)
@click.pass_context
def simulate(
    context: click.Context,
    seed: int | None,
    seeds: int | None,
    first: int | None,
    replicas: int | None,
    faulty: tuple[str, ...],
) -> None:
    """Run simulated clusters; exit code 0 only if every check holds for every seed."""
    if context.invoked_subcommand is not None:
        if any(given not in (None, ()) for given in context.params.values()):
            raise click.UsageError(f"options of {context.invoked_subcommand} come after its name")
        return
    numbers = _numbers(seed, seeds, first)
    if faulty and replicas is None:
        replicas = REPLICAS
    chosen = _modes(faulty, replicas or REPLICAS) if faulty else None
    tally = Tally()
    try:
        _run([seed] if seed is not None else numbers, replicas, chosen, tally)
    except KeyboardInterrupt:
        _tell(tally)
        raise Interrupted(f"interrupted after {tally.seeds} of {len(numbers)} seeds") from None
    _tell(tally)
    if tally.failed:
        raise CliError(f"{len(tally.failed)} of {_count(len(numbers), 'seed')} failed")


simulate.add_command(crash_points)


def _numbers(seed: int | None, seeds: int | None, first: int | None) -> range:
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed N or --seeds COUNT")
    if seed is not None:
        if first is not None:
            raise click.UsageError("--first goes with --seeds COUNT, not with --seed N")
        return range(seed, seed + 1)
    start = 1 if first is None else first
    return range(start, start + (seeds or 0))


def _modes(faulty: tuple[str, ...], replicas: int) -> tuple[tuple[int, str], ...]:
    """Who is faulty, and how. Raises UsageError."""
    try:
        modes = parse_faulty(faulty, replicas)
        for spec in modes.values():
            check_modes(spec)
    except (CliError, UnknownMode) as error:
        raise click.UsageError(str(error)) from None
    tolerated = Quorum(replicas).f
    if len(modes) > tolerated:
        raise click.UsageError(
            f"--faulty names {len(modes)} replicas, and {replicas} replicas tolerate {tolerated}"
        )
    return tuple(sorted(modes.items()))


def _run(
    numbers: Sequence[int],
    replicas: int | None,
    faulty: tuple[tuple[int, str], ...] | None,
    tally: Tally,
) -> None:
    tasks = (Task(number, replicas, faulty) for number in numbers)
    if len(numbers) == 1:
        _run_alone(next(tasks), tally)
        return
    try:
        with closing(run_all(_simulated, tasks)) as results:
            for task, outcome in watched(results, "simulating", len(numbers)):
                tally.add(task, outcome)
    except BrokenProcessPool:
        _tell(tally)
        raise CliError(
            f"a worker process has died after {tally.seeds} of {len(numbers)} seeds: "
            "is there enough memory?"
        ) from None


def _run_alone(task: Task, tally: Tally) -> None:
    _, outcome = _simulated(task)
    tally.add(task, outcome)
    click.echo(
        f"seed {outcome.seed}: {outcome.batches} batches, highest view {outcome.highest_view}, "
        f"{outcome.messages} messages, trace {outcome.trace_hash}"
    )


def _simulated(task: Task) -> tuple[Task, Outcome]:
    return task, run(scenario_of(task.seed, task.replicas, task.faulty))


def _tell(tally: Tally) -> None:
    for line in tally.report():
        click.echo(line)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
