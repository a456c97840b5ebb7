"""`pbft simulate`: whole clusters on virtual time, from seeds."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import click
from rich.progress import track

from pbft.cli.errors import CliError
from pbft.cli.processes import parse_faulty
from pbft.faults.modes import check_modes
from pbft.messages import MAX_REPLICAS
from pbft.simulation.runner import Outcome, run
from pbft.simulation.scenario import Scenario, scenario_of


@click.command(name="simulate")
@click.option("--seed", type=int, help="Run this one seed.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run this many seeds, on all cores.")
@click.option("--first", type=int, default=1, show_default=True, help="The first of --seeds.")
@click.option("--replicas", type=click.IntRange(4, MAX_REPLICAS), help="Instead of the seed's own.")
@click.option("--faulty", multiple=True, metavar="REPLICA=MODE", help="Instead of the seed's own.")
def simulate(
    seed: int | None,
    seeds: int | None,
    first: int,
    replicas: int | None,
    faulty: tuple[str, ...],
) -> None:
    """Run simulated clusters; exit code 0 only if every check holds for every seed."""
    if (seed is None) == (seeds is None):
        raise click.UsageError("give either --seed N or --seeds COUNT")
    modes = parse_faulty(faulty, replicas or 4) if faulty else None
    for spec in (modes or {}).values():
        check_modes(spec)
    chosen = None if modes is None else tuple(sorted(modes.items()))
    n = 4 if modes is not None and replicas is None else replicas
    numbers = [seed] if seed is not None else list(range(first, first + (seeds or 0)))
    scenarios = [scenario_of(number, n, chosen) for number in numbers]
    failed = [outcome for outcome in _outcomes(scenarios) if _tell(outcome, len(numbers) == 1)]
    for outcome in failed:
        click.echo(f"replay it with: pbft simulate --seed {outcome.seed}{_options(n, faulty)}")
    if failed:
        raise CliError(f"{len(failed)} of {len(numbers)} seeds failed")
    click.echo(f"{len(numbers)} seeds, 0 failures")


def _outcomes(scenarios: list[Scenario]) -> Iterator[Outcome]:
    if len(scenarios) == 1:
        yield run(scenarios[0])
        return
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(run, scenarios, chunksize=4)
        yield from track(done, "simulating", total=len(scenarios))


def _tell(outcome: Outcome, alone: bool) -> bool:
    """Print what there is to say; True where the run failed."""
    if alone:
        click.echo(
            f"seed {outcome.seed}: {outcome.operations} operations in {outcome.batches} batches, "
            f"highest view {outcome.highest_view}, {outcome.messages} messages, "
            f"{outcome.virtual_seconds:.1f} virtual seconds, trace {outcome.trace_hash}"
        )
    for failure in outcome.failures:
        click.echo(f"seed {outcome.seed} FAILED: {failure}")
    return bool(outcome.failures)


def _options(replicas: int | None, faulty: tuple[str, ...]) -> str:
    options = f" --replicas {replicas}" if replicas is not None else ""
    return options + "".join(f" --faulty {setting}" for setting in faulty)
