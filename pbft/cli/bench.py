"""`pbft bench`: closed-loop load on a running cluster."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from client.errors import ClientError
from client.kv import KV
from pbft.cli.connection import client_option, connect, keys_option
from pbft.cli.errors import CliError
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE

DEADLINE_S = 10.0  # of each operation; so it is also how long a run may take beyond its duration
PAUSE_S = 0.05  # after an error, so that a refused client does not spin
KEYS_PER_LOOP = 1000


class Load(Struct, frozen=True):
    """What to put on: `clients` * `in_flight` loops of puts with values of `size` bytes."""

    clients: int
    in_flight: int
    size: int
    duration: float  # seconds


class Outcome(Struct, frozen=True):
    """What was measured; times in milliseconds, 0 where nothing was answered."""

    clients: int
    in_flight: int
    size: int
    seconds: float
    operations: int
    operations_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]


@click.command()
@keys_option
@client_option
@click.option(
    "--clients",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="How many clients; each has a session of its own.",
)
@click.option(
    "--in-flight",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Operations that each client waits for at once.",
)
@click.option(
    "--size",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="Bytes of each value that is put.",
)
@click.option(
    "--duration",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 86_400, min_open=True),
    help="Seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    keys: Path,
    client_name: str,
    clients: int,
    in_flight: int,
    size: int,
    duration: float,
    as_json: bool,
) -> None:
    """Measure throughput and latency of puts, each client waiting for its answers.

    Writes to keys that begin with "bench/". Exit code 1 if no operation succeeded.
    """
    _check_limits(keys, clients, size)
    load = Load(clients, in_flight, size, duration)
    outcome = uvloop.run(run(load, keys, client_name))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(outcome)))
    else:
        Console().print(_table(outcome))
    if not outcome.operations:
        raise CliError("no operation succeeded: see `pbft status` for who is reachable")


def _check_limits(keys: Path, clients: int, size: int) -> None:
    parameters = load_cluster(keys / CLUSTER_FILE).parameters
    if clients > parameters.sessions_per_client:
        raise CliError(
            f"one key has at most {parameters.sessions_per_client} sessions in this cluster, "
            f"so --clients {clients} would evict one another"
        )
    if size + 1024 > parameters.max_operation_bytes:
        raise CliError(f"--size is at most {parameters.max_operation_bytes - 1024} in this cluster")


async def run(load: Load, keys: Path, client_name: str) -> Outcome:
    """Put on `load` and measure. Raises ConfigError, KeyFileError, ClientError."""
    async with AsyncExitStack() as stack:
        stores = [
            KV(await stack.enter_async_context(connect(keys, client_name, DEADLINE_S)))
            for _ in range(load.clients)
        ]
        await asyncio.gather(*(store.put(b"bench/warm-up", b"") for store in stores))
        return await _measure(load, stores)


async def _measure(load: Load, stores: list[KV]) -> Outcome:
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    start = time.perf_counter()
    loops = [
        _loop(store, f"bench/{number}/{lane}", load, start, latencies, errors)
        for number, store in enumerate(stores)
        for lane in range(load.in_flight)
    ]
    await asyncio.gather(*loops)
    return _summarize(load, time.perf_counter() - start, latencies, errors)


async def _loop(
    store: KV,
    prefix: str,
    load: Load,
    start: float,
    latencies: list[float],
    errors: Counter[str],
) -> None:
    value, number = b"x" * load.size, 0
    while (began := time.perf_counter()) < start + load.duration:
        try:
            await store.put(f"{prefix}/{number % KEYS_PER_LOOP}".encode(), value)
        except ClientError as error:
            errors[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)
        else:
            latencies.append(time.perf_counter() - began)
        number += 1


def _summarize(load: Load, seconds: float, latencies: list[float], errors: Counter[str]) -> Outcome:
    ordered = sorted(1000 * latency for latency in latencies)
    return Outcome(
        clients=load.clients,
        in_flight=load.in_flight,
        size=load.size,
        seconds=round(seconds, 3),
        operations=len(ordered),
        operations_per_second=round(len(ordered) / seconds, 1),
        p50_ms=percentile(ordered, 50),
        p90_ms=percentile(ordered, 90),
        p99_ms=percentile(ordered, 99),
        max_ms=percentile(ordered, 100),
        errors=dict(sorted(errors.items())),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of ascending values, rounded to 1/1000; 0 if there are none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return round(ordered[max(rank, 1) - 1], 3)


def _table(outcome: Outcome) -> Table:
    table = Table(show_header=False)
    for name, value in msgspec.structs.asdict(outcome).items():
        shown = value if name != "errors" else _errors(outcome.errors)
        table.add_row(name.replace("_", " "), str(shown))
    return table


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in errors.items()) or "none"
