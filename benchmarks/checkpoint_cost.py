"""`make bench-checkpoints`: what checkpoints cost, against what is stored and in the hot path.

1. Flushes of as many changes in states of 10^3 to 10^6 keys, each on a disk of its own.
2. Throughput of a cluster with the checkpoints that are usual, and of one whose interval is so long
   that hardly any falls into a measurement.

Both alternate, so that what disturbs the machine for a while disturbs all alike; the tables show
medians.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import machine
import msgspec
import report
import run as cluster_run
from msgspec import Struct
from rich.console import Console

from pbft.config import Parameters
from pbft.config_check import MAX_WINDOW
from pbft.storage.lmdb_database import LmdbDatabase, LmdbTransaction
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

BEGIN = "<!-- checkpoints: written by `make bench-checkpoints` -->\n"
END = "<!-- end of checkpoints -->\n"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CHANGES = (100, 1_000, 10_000)
VALUE_BYTES = 100
CHUNK = 50_000  # keys per flush while a state is filled
MAP_BYTES = 1 << 34
BUNDLED = "8 clients, 64 in flight each"
ROWS = (
    cluster_run.Row("64 clients", 64),
    cluster_run.Row(BUNDLED, 8, 64),
    cluster_run.Row(f"{BUNDLED}, 1,000 keys", 8, 64, key_space=1000),
)
USUAL = Parameters()
RARE = Parameters(window=MAX_WINDOW, checkpoint_interval=MAX_WINDOW // 2)


class Cost(Struct, frozen=True):
    """One flush: nodes renewed; seconds until it was durable, and of a processor for its parts."""

    nodes: float  # in millionths, as seconds in µs are
    elapsed: float
    whole: float
    records: float
    tree: float
    commit: float


class Clocked:
    """A database whose write transactions note what `write` and `commit` take, and each `put`."""

    def __init__(self, database: LmdbDatabase) -> None:
        self._database = database
        self.spent = {"write": 0.0, "commit": 0.0, "puts": 0.0}

    def begin(self) -> "ClockedTransaction":
        """As the database."""
        return ClockedTransaction(self._database.begin(), self.spent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class ClockedTransaction:
    """See `Clocked`."""

    def __init__(self, transaction: LmdbTransaction, spent: dict[str, float]) -> None:
        self._transaction = transaction
        self._spent = spent

    def write(self, table: str, changes: Mapping[bytes, bytes | None]) -> list[bytes]:
        """As the transaction, timed."""
        start = time.process_time()
        missing = self._transaction.write(table, changes)
        self._spent["write"] += time.process_time() - start
        return missing

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """As the transaction, counted."""
        self._spent["puts"] += 1e-6
        self._transaction.put(table, key, value)

    def commit(self) -> None:
        """As the transaction, timed."""
        start = time.process_time()
        self._transaction.commit()
        self._spent["commit"] += time.process_time() - start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)


class State:
    """A state of `size` keys on a disk of its own."""

    def __init__(self, path: Path, size: int) -> None:
        self._database = Clocked(LmdbDatabase(path, STATE_TABLES, MAP_BYTES))
        self._store = StateStore(self._database)
        self._random = random.Random(size)
        self._size = size
        for first in range(0, size, CHUNK):
            self._flush(range(first, min(first + CHUNK, size)))

    def overwrite(self, changes: int) -> Cost:
        """Give as many random keys new values, and flush."""
        return self._flush(self._random.sample(range(self._size), changes))

    def _flush(self, numbers: range | list[int]) -> Cost:
        store = self._store
        store.begin_batch(store.seq + 1, store.time + 1)
        for number in numbers:
            store.application.put(b"key/%07d" % number, self._random.randbytes(VALUE_BYTES))
        spent = self._database.spent
        spent.update(write=0.0, commit=0.0, puts=0.0)
        start, began = time.perf_counter(), time.process_time()
        store.flush()
        elapsed, whole = time.perf_counter() - start, time.process_time() - began
        records, commit = spent["write"], spent["commit"]
        return Cost(spent["puts"], elapsed, whole, records, whole - records - commit, commit)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


@click.command()
@click.option("--flushes", default=9, show_default=True, type=click.IntRange(0))
@click.option("--repetitions", default=3, show_default=True, type=click.IntRange(0))
@click.option("--duration", default=5.0, show_default=True, help="Seconds of each measurement.")
@click.option("--page", type=click.Path(path_type=Path), default=report.PAGE)
def main(flushes: int, repetitions: int, duration: float, page: Path) -> None:
    """Measure, and write the tables into the page."""
    console = Console(width=report.WIDTH)
    busy = machine.load_per_core()
    command = (
        f"make bench-checkpoints, {flushes} flushes, {repetitions} repetitions of {duration:g} s"
    )
    text = [
        *report.warning(busy),
        f"{machine.core_count()} cores ({machine.description()}). Command: {command}. "
        f"Load per core before the start: {busy:.2f}.",
        "",
        *(_costs(flushes) if flushes else ()),
    ]
    if repetitions:
        text += ["", *_throughput(repetitions, duration)]
    console.print("\n".join(text))
    report.put_between(page, BEGIN, END, "\n".join([*text, ""]))


def _costs(flushes: int) -> list[str]:
    """The first table."""
    titles = (
        "keys stored",
        "keys changed",
        "nodes renewed per changed key",
        "elapsed µs",
        "processor µs",
        "of it records",
        "tree",
        "commit",
    )
    costs = {(size, changes): [] for changes in CHANGES for size in SIZES if changes <= size}
    with tempfile.TemporaryDirectory(prefix="pbft-bench-") as folder, ExitStack() as stack:
        states = {size: State(Path(folder) / str(size), size) for size in SIZES}
        for state in states.values():
            stack.callback(state.close)
        for _ in range(flushes):
            for (size, changes), samples in costs.items():
                samples.append(states[size].overwrite(changes))
    rows = [_cost_row(size, changes, samples) for (size, changes), samples in costs.items()]
    return _markdown(titles, rows)


def _cost_row(size: int, changes: int, samples: list[Cost]) -> tuple[str, ...]:
    parts = zip(*map(msgspec.structs.astuple, samples), strict=True)
    each = (f"{1e6 * statistics.median(part) / changes:.1f}" for part in parts)
    return (f"{size:,}", f"{changes:,}", *each)


def _throughput(repetitions: int, duration: float) -> list[str]:
    """The second table."""
    rates: dict[tuple[str, bool], list[report.Sample]] = {}
    for number in range(repetitions):
        for row in ROWS:
            for usual in (True, False) if number % 2 else (False, True):
                sample = _measure(row, USUAL if usual else RARE, duration)
                rates.setdefault((row.name, usual), []).append(sample)
    titles = (
        "load",
        f"operations/s, a checkpoint every {USUAL.checkpoint_interval}",
        f"every {RARE.checkpoint_interval}",
        "throughput that checkpoints cost",
        "replicas' CPU µs/operation",
        "with rare ones",
        "CPU that checkpoints cost",
        "longest pause ms",
        "with rare ones",
    )
    rows = [
        _throughput_row(row.name, rates[row.name, True], rates[row.name, False]) for row in ROWS
    ]
    return _markdown(titles, rows)


def _measure(row: cluster_run.Row, parameters: Parameters, duration: float) -> report.Sample:
    with (
        tempfile.TemporaryDirectory(prefix="pbft-bench-") as folder,
        cluster_run.running_cluster(Path(folder), parameters) as cluster,
    ):
        return cluster.measure(row, duration)


def _throughput_row(
    name: str, usual: list[report.Sample], rare: list[report.Sample]
) -> tuple[str, ...]:
    def both(figure: Any) -> tuple[float, float]:
        return statistics.median(map(figure, usual)), statistics.median(map(figure, rare))

    rate, rare_rate = both(lambda sample: sample.outcome.operations_per_second)
    spent, rare_spent = both(report.processor_time)
    pause, rare_pause = both(lambda sample: sample.outcome.longest_pause_ms)
    return (
        name,
        f"{rate:,.0f}",
        f"{rare_rate:,.0f}",
        f"{100 * (1 - rate / rare_rate):.1f} %",
        f"{spent:,.0f}",
        f"{rare_spent:,.0f}",
        f"{100 * (1 - rare_spent / spent):.1f} %",
        f"{pause:,.0f}",
        f"{rare_pause:,.0f}",
    )


def _markdown(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    def lines() -> Iterator[tuple[str, ...]]:
        yield from (titles, ("---",) * len(titles))
        yield from rows

    return ["| " + " | ".join(cells) + " |" for cells in lines()]


if __name__ == "__main__":
    main()
