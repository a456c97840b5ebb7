"""The figures as a table on the terminal, a part of docs/performance.md, and JSON."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from machine import BUSY_LOAD, Calibration
from msgspec import Struct
from rich.table import Table

from pbft.cli.bench import Outcome
from pbft.core.quorum import Quorum

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by `make bench` -->\n", "<!-- end of figures -->\n"
WIDTH = 150  # columns that the table may take, whatever the terminal has
TITLES = (
    "load",
    "operations/s",
    "of the ceiling",
    "p50 ms",
    "p99 ms",
    "longest pause ms",
    "replicas' CPU µs/operation",
)


class Sample(Struct, frozen=True):
    """One measurement, and the replicas' processor time in it (s) where that is known."""

    outcome: Outcome
    processor_time: float | None


class Line(Struct, frozen=True):
    """All measurements of one load with this many operations in flight."""

    name: str
    killed: bool
    in_flight: int
    samples: tuple[Sample, ...]

    def spread(self, figure: Callable[[Sample], float]) -> str:
        """The median of a figure, and its extremes."""
        values = [figure(sample) for sample in self.samples]
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{_number(middle)} ({_number(low)}-{_number(high)})"


class Result(Struct, frozen=True):
    """A whole run. `busy` is the load per core before it, `stolen` what other machines took."""

    machine: str
    command: str
    busy: float
    stolen: float
    calibrations: Sequence[Calibration]
    lines: Sequence[Line]

    @property
    def calibration(self) -> Calibration:
        """The medians of all."""
        columns = zip(*map(msgspec.structs.astuple, self.calibrations), strict=True)
        return Calibration(*map(statistics.median, columns))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cells(line: Line, ceiling: float) -> tuple[str, ...]:
    rate = statistics.median(sample.outcome.operations_per_second for sample in line.samples)
    reads_or_bundles = line.samples[0].outcome.in_flight > 1 or "read" in line.name
    known = not line.killed and all(sample.processor_time for sample in line.samples)
    return (
        line.name,
        line.spread(lambda sample: sample.outcome.operations_per_second),
        "" if reads_or_bundles or line.killed else f"{rate / ceiling:.2f}",
        line.spread(lambda sample: sample.outcome.p50_ms),
        line.spread(lambda sample: sample.outcome.p99_ms),
        line.spread(lambda sample: sample.outcome.longest_pause_ms),
        line.spread(processor_time) if known else "",
    )


def processor_time(sample: Sample) -> float:
    """Of all replicas together, per operation (µs)."""
    return 1e6 * (sample.processor_time or 0) / max(sample.outcome.operations, 1)


def table(result: Result, quorum: Quorum) -> Table:
    """For the terminal."""
    shown = Table(title=_ceiling(result, quorum))
    for title in TITLES:
        shown.add_column(title)
    for line in result.lines:
        shown.add_row(*_cells(line, result.calibration.ceiling(quorum)))
    return shown


def _ceiling(result: Result, quorum: Quorum) -> str:
    one = result.calibration
    return (
        f"signature ceiling: {one.cores:g} cores / ({quorum.n} verifications of the request + 1 "
        f"signature + {quorum.w} verifications of replies) = {one.ceiling(quorum):,.0f} requests/s"
    )


def write(result: Result, quorum: Quorum, page: Path, figures: Path) -> None:
    """Put the figures into the page, between the marks, and into a JSON file."""
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    put_between(page, BEGIN, END, _markdown(result, quorum))


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page; all the rest stays."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(before + begin + text + end + after)


def _markdown(result: Result, quorum: Quorum) -> str:
    one = result.calibration
    rows = [_cells(line, one.ceiling(quorum)) for line in result.lines]
    lines = ["| " + " | ".join(cells) + " |" for cells in (TITLES, ("---",) * len(TITLES), *rows)]
    return "\n".join(
        [
            *warning(result.busy),
            f"{one.cores:g} cores ({result.machine}), shared by clients and all replicas.",
            f"Command: {result.command}. Load per core before the start: {result.busy:.2f}; "
            f"stolen by other machines: {100 * result.stolen:.1f} %.",
            "",
            f"One core, all cores busy: {one.verify_per_second:,.0f} verifications/s, "
            f"{one.sign_per_second:,.0f} signatures/s; "
            f"fdatasync of 4 KiB: {one.fdatasync_ms:g} ms.",
            f"{_ceiling(result, quorum).capitalize()}.",
            "",
            *lines,
            "",
        ]
    )


def warning(busy: float) -> list[str]:
    """What to say above figures that were taken with this load per core."""
    if busy <= BUSY_LOAD:
        return []
    return ["**Draft: the machine was busy with other work; do not quote these figures.**", ""]
