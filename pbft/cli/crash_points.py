"""`pbft simulate crash-points`: kill simulated replicas wherever they can be killed."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial

import click

from pbft.cli.errors import CliError, Interrupted
from pbft.cli.workers import run_all, watched
from pbft.simulation.crash_points import (
    REPLICAS,
    SEED,
    CrashRun,
    Kill,
    Points,
    count_kinds,
    pairs_of,
    run_with,
    single_kills,
    sort_key,
)

_replica = click.IntRange(0, REPLICAS - 1)
_number = click.IntRange(min=1)


@click.command(name="crash-points")
@click.option(
    "--seed", default=SEED, show_default=True, type=click.IntRange(min=0), help="Of timing."
)
@click.option("--pairs", type=_number, metavar="N", help="Then two kills: every N-th of all pairs.")
@click.option("--replica", type=_replica, help="One run alone: kill this replica ...")
@click.option("--point", type=_number, help="... at this one of its points ...")
@click.option("--again", type=_number, help="... and at this point of the life after that ...")
@click.option("--with", "others", type=_replica, multiple=True, help="... and this one with it.")
def crash_points(
    seed: int,
    pairs: int | None,
    replica: int | None,
    point: int | None,
    again: int | None,
    others: tuple[int, ...],
) -> None:
    """Kill replicas at every point of one scenario; exit code 0 only if every check holds.

    A point is a commit, a packet to one receiver, or an execution.
    """
    kill = _chosen(replica, point, again, others)
    if kill is None:
        _enumerate(seed, pairs)
    elif pairs is not None:
        raise click.UsageError("--pairs goes without --replica and --point")
    else:
        _run_alone(kill, seed)


def _chosen(
    replica: int | None, point: int | None, again: int | None, others: tuple[int, ...]
) -> Kill | None:
    """The kill that the options name, or None. Raises UsageError."""
    if (replica is None) != (point is None):
        raise click.UsageError("--replica and --point go together")
    if replica is None or point is None:
        if again is not None or others:
            raise click.UsageError("--again and --with go with --replica and --point")
        return None
    if replica in others:
        raise click.UsageError("--with names other replicas than --replica does")
    return Kill(replica, point, again, tuple(sorted(set(others))))


class Tally:
    """What has come of the runs so far."""

    def __init__(self, seed: int, what: str) -> None:
        self.runs: list[CrashRun] = []
        self._seed = seed
        self._what = what

    @property
    def failed(self) -> list[CrashRun]:
        """The runs in which a check did not hold."""
        failed = [run for run in self.runs if run.failures]
        return sorted(failed, key=lambda run: sort_key(run.kill))

    def report(self) -> Iterator[str]:
        """Every failure with the command that replays it, then one line about all runs."""
        for run in self.failed:
            for failure in run.failures:
                yield f"FAILED, killed at {_where(run)}: {failure}"
            yield f"replay it with: {_command(run, self._seed)}"
        kills = sum(len(run.kinds) + len(run.kill.others) for run in self.runs if run.kill)
        views = sum(run.highest_view for run in self.runs)
        transfers = sum(run.counts.get("state-transfer-finished", 0) for run in self.runs)
        yield (
            f"{self._what}: {len(self.runs)} runs, {len(self.failed)} failures, {kills} kills, "
            f"{sum(run.recovery for run in self.runs)} points of recovery, {views} view changes, "
            f"{transfers} state transfers"
        )


def _where(run: CrashRun) -> str:
    return " and ".join(f"'{kind}'" for kind in run.kinds) or "no point"


def _command(run: CrashRun, seed: int) -> str:
    """What to type to see it again."""
    kill = run.kill
    assert kill is not None
    options = "" if seed == SEED else f" --seed {seed}"
    options += f" --replica {kill.replica} --point {kill.point}"
    options += "" if kill.again is None else f" --again {kill.again}"
    options += "".join(f" --with {other}" for other in kill.others)
    return f"pbft simulate crash-points{options}"


def _run_alone(kill: Kill, seed: int) -> None:
    tally = Tally(seed, "one run")
    run = run_with(kill, seed)
    tally.runs.append(run)
    click.echo(
        f"killed at {_where(run)}: {run.batches} batches, highest view {run.highest_view}, "
        f"trace {run.trace_hash}"
    )
    _tell(tally)
    _end(tally)


def _enumerate(seed: int, pairs: int | None) -> None:
    quiet = run_with(None, seed)
    if quiet.failures:
        raise CliError(f"it fails without any kill: {'; '.join(quiet.failures)}")
    for line in _table(quiet.points):
        click.echo(line)
    singles = _run(single_kills(quiet.points), seed, "one kill")
    doubles = _run(pairs_of(singles.runs, pairs), seed, "two kills") if pairs else None
    _end(singles, *filter(None, [doubles]))


def _end(*tallies: Tally) -> None:
    """Raises CliError if anything has failed."""
    failed = sum(len(tally.failed) for tally in tallies)
    if failed:
        raise CliError(f"{failed} of {sum(len(tally.runs) for tally in tallies)} runs failed")


def _tell(tally: Tally) -> None:
    for line in tally.report():
        click.echo(line)


def _table(points: Points) -> Iterator[str]:
    """How many points of which kind each replica has."""
    counts = count_kinds(points)
    heads = [f"replica {replica}" for replica in range(len(points))]
    rows = [("point", *heads, "all"), *((kind, *map(str, n), str(sum(n))) for kind, n in counts)]
    total = [len(kinds) for kinds in points]
    rows.append(("all kinds", *map(str, total), str(sum(total))))
    for name, *numbers in rows:
        yield f"{name:<24}" + "".join(f"{number:>11}" for number in numbers)


def _run(kills: Sequence[Kill], seed: int, what: str) -> Tally:
    """Run all of `kills` on all cores and say what came of it."""
    tally = Tally(seed, what)
    try:
        with closing(run_all(partial(run_with, seed=seed), kills)) as results:
            for run in watched(results, what, len(kills)):
                tally.runs.append(run)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted after {len(tally.runs)} of {len(kills)} runs") from None
    except BrokenProcessPool:
        raise CliError(
            f"a worker process has died after {len(tally.runs)} of {len(kills)} runs: "
            "is there enough memory?"
        ) from None
    finally:
        _tell(tally)
    return tally
