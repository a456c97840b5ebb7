"""`pbft bench`: closed-loop load on a running cluster."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from client.client import Client
from client.errors import ClientError
from client.kv import KV
from pbft.cli.connection import keys_option
from pbft.cli.errors import CliError
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE, client_key_file, load_client_signer

DEADLINE_S = 10.0  # of each operation; so it is also how long a run may take beyond its duration
PAUSE_S = 0.05  # after an error, so that a refused client does not spin
KEY_SPACE = 100_000
READ_KEY = b"bench/read"


class Load(Struct, frozen=True):
    """What to put on: `clients` * `in_flight` loops of puts with values of `size` bytes.

    All of them together write `key_space` keys in turn. With `reads` they are fast reads of one
    such value instead.
    """

    clients: int
    in_flight: int
    size: int
    duration: float  # seconds
    reads: bool = False
    key_space: int = KEY_SPACE


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
    longest_pause_ms: float  # in which no client got an answer
    errors: dict[str, int]


@click.command()
@keys_option
@click.option(
    "--client",
    "names",
    multiple=True,
    metavar="NAME",
    help="Whose key to use; may be given more than once.  [default: every client's key there]",
)
@click.option(
    "--clients",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="How many clients, with a session each; where keys are fewer, they share them.",
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
@click.option("--reads", is_flag=True, help="Fast reads of one value instead of puts.")
@click.option(
    "--key-space",
    default=KEY_SPACE,
    show_default=True,
    type=click.IntRange(1, 10**9),
    help="How many different keys are put, in turn.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(keys: Path, names: tuple[str, ...], as_json: bool, **load: Any) -> None:
    """Measure throughput and latency, each client waiting for its answers.

    Writes to keys that begin with "bench/". Exit code 1 if no operation succeeded.
    """
    config = load_cluster(keys / CLUSTER_FILE)
    chosen = names or client_names(config, keys)
    outcome = uvloop.run(run(Load(**load), config, keys, chosen))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(outcome)))
    else:
        Console().print(_table(outcome))
    if not outcome.operations:
        raise CliError("no operation succeeded: see `pbft status` for who is reachable")


def client_names(config: ClusterConfig, keys: Path) -> tuple[str, ...]:
    """The clients of the cluster whose private keys are in the folder. Raises CliError."""
    names = (client.name for client in config.clients)
    found = tuple(name for name in names if client_key_file(keys, name).exists())
    if not found:
        raise CliError(f"there is no client's key in {keys}")
    return found


def _check_limits(config: ClusterConfig, load: Load, names: Sequence[str]) -> None:
    parameters = config.parameters
    sessions = -(-load.clients // len(names))
    if sessions > parameters.sessions_per_client:
        raise CliError(
            f"a key has at most {parameters.sessions_per_client} sessions here, and there are "
            f"{len(names)} keys, so --clients {load.clients} would evict one another"
        )
    if load.size + 1024 > parameters.max_operation_bytes:
        raise CliError(f"--size is at most {parameters.max_operation_bytes - 1024} in this cluster")


async def run(load: Load, config: ClusterConfig, keys: Path, names: Sequence[str]) -> Outcome:
    """Put on `load` with the keys of these clients in turn, and measure.

    Raises CliError, ConfigError, KeyFileError, ClientError.
    """
    _check_limits(config, load, names)
    signers = [load_client_signer(config, keys, name) for name in names]
    async with AsyncExitStack() as stack:
        stores = [
            KV(await stack.enter_async_context(Client(config, signer, deadline=DEADLINE_S)))
            for signer in islice(cycle(signers), load.clients)
        ]
        value = b"x" * load.size
        await asyncio.gather(*(store.put(READ_KEY, value) for store in stores))
        return await Run(load).measure(stores)


class Run:
    """One run and what is measured in it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._value = b"x" * load.size
        self._start = time.perf_counter()
        self._latencies: list[float] = []
        self._answers: list[float] = [self._start]
        self._errors: Counter[str] = Counter()

    async def measure(self, stores: Sequence[KV]) -> Outcome:
        """Run every loop for the load's duration."""
        self._start = self._answers[0] = time.perf_counter()
        lanes = range(self._load.in_flight)
        await asyncio.gather(
            *(self._loop(*loop) for loop in enumerate(store for store in stores for _ in lanes))
        )
        return self._summarize(time.perf_counter() - self._start)

    async def _loop(self, loop: int, store: KV) -> None:
        operate = self._reader(store) if self._load.reads else self._writer(store, loop)
        number = 0
        while (began := time.perf_counter()) < self._start + self._load.duration:
            try:
                await operate(number)
            except ClientError as error:
                self._errors[type(error).__name__] += 1
                await asyncio.sleep(PAUSE_S)
            else:
                self._answers.append(time.perf_counter())
                self._latencies.append(self._answers[-1] - began)
            number += 1

    def _writer(self, store: KV, loop: int) -> Callable[[int], Awaitable[object]]:
        loops, keys = self._load.clients * self._load.in_flight, self._load.key_space
        return lambda n: store.put(b"bench/%09d" % ((loop + n * loops) % keys), self._value)

    def _reader(self, store: KV) -> Callable[[int], Awaitable[object]]:
        return lambda _number: store.get(READ_KEY)

    def _summarize(self, seconds: float) -> Outcome:
        ordered = sorted(1000 * latency for latency in self._latencies)
        pauses = [1000 * (later - earlier) for earlier, later in pairwise(self._answers)]
        return Outcome(
            clients=self._load.clients,
            in_flight=self._load.in_flight,
            size=self._load.size,
            seconds=round(seconds, 3),
            operations=len(ordered),
            operations_per_second=round(len(ordered) / seconds, 1),
            p50_ms=percentile(ordered, 50),
            p90_ms=percentile(ordered, 90),
            p99_ms=percentile(ordered, 99),
            max_ms=percentile(ordered, 100),
            longest_pause_ms=round(max(pauses, default=0.0), 3),
            errors=dict(sorted(self._errors.items())),
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
