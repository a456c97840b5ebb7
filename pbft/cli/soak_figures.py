"""What `pbft soak` has measured: pauses, restarts, memory, disk; as a table and as JSON."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression
from typing import Any

from rich.table import Table

from pbft.cli.soak_checks import CheckFailed
from pbft.node.memory import private_bytes

MIB = 1024 * 1024
MEMORY_BOUND = 192 * MIB
DISK_BOUND = 512 * MIB
SHORTEST_TREND = 300.0  # seconds; growth per hour means nothing over less
JUDGED_EPOCHS = 12  # before so many, what is kept on purpose is not all there
GROWTH, SLACK = 1.5, 32 * MIB  # what the second half of the run may add to the first


class Gauge:
    """One quantity of the worst replica, in bytes: at the end of each epoch, and its maximum."""

    def __init__(self, what: str, bound: int) -> None:
        self._what = what
        self._bound = bound
        self._ends: list[tuple[float, int]] = []  # (when, how much) at the end of an epoch
        self._most = self._now = 0

    def sample(self, found: dict[int, int]) -> None:
        """Take a value per replica. Raises CheckFailed above the bound."""
        self._now = max(found.values(), default=0)
        self._most = max(self._most, self._now)
        for replica, value in found.items():
            if value > self._bound:
                raise CheckFailed(
                    f"the {self._what} of replica {replica} has grown to {value / MIB:.0f} MiB: "
                    f"more than {self._bound // MIB} MiB"
                )

    def mark(self) -> None:
        """An epoch ends. Raises CheckFailed if what there is at these moments goes on growing."""
        self._ends.append((time.monotonic(), self._now))
        ends = [value for _, value in self._ends]
        if len(ends) < JUDGED_EPOCHS:
            return
        before, after = max(ends[: len(ends) // 2]), max(ends[len(ends) // 2 :])
        if after > GROWTH * before + SLACK:
            raise CheckFailed(
                f"the {self._what} of a replica goes on growing: at most {before / MIB:.0f} MiB at "
                f"the end of an epoch in the first half, {after / MIB:.0f} MiB in the second"
            )

    def figures(self) -> dict[str, Any]:
        """MiB at the end of each epoch and at most, and the growth in the second half."""
        ends = [round(value / MIB, 1) for _, value in self._ends]
        return {
            "first": ends[0] if ends else None,
            "last": ends[-1] if ends else None,
            "max": round(self._most / MIB, 1),
            "bound": self._bound // MIB,
            "growth_per_hour": self._growth(),
            "ends": ends,
        }

    def _growth(self) -> float | None:
        """MiB per hour: the first half fills what is kept, and short runs show nothing."""
        half = self._ends[len(self._ends) // 2 :]
        if not half or half[-1][0] - half[0][0] < SHORTEST_TREND:
            return None
        return round(linear_regression(*zip(*half, strict=True)).slope / MIB * 3600, 1)


class Figures:
    """Everything that is counted; times in seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.kills: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()  # operations of epochs that were checked
        self.stops = self.wipes = self.epochs = self.operations = 0
        self.restarts: list[float] = []  # from the start of a process until it listens
        self.votes: list[float] = []  # ... until it is seen to vote
        self.events: Counter[str] = Counter()  # lines of the log
        self.memory = Gauge("memory", MEMORY_BOUND)
        self.disk = Gauge("disk", DISK_BOUND)
        self.longest_pause = self.longest_with_quorum = 0.0
        self._last = self.began
        self._quorum_since: float | None = None

    @property
    def killed(self) -> int:
        """How many processes were killed."""
        return self.kills.total()

    def working(self) -> None:
        """Clients begin, or go on."""
        self._last = time.monotonic()

    def done(self) -> None:
        """An operation is acknowledged."""
        now = time.monotonic()
        self.operations += 1
        self.longest_pause = max(self.longest_pause, now - self._last)
        if self._quorum_since is not None:
            since = max(self._last, self._quorum_since)
            self.longest_with_quorum = max(self.longest_with_quorum, now - since)
        self._last = now

    def quorum(self, there: bool) -> None:
        """Whether enough replicas run for the cluster to go on."""
        if not there:
            self._quorum_since = None
        elif self._quorum_since is None:
            self._quorum_since = time.monotonic()

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        seconds = time.monotonic() - self.began
        return {
            "seconds": round(seconds, 1),
            "epochs": self.epochs,
            "kills": self.killed,
            "kills_by_kind": dict(self.kills),
            "stops": self.stops,
            "wipes": self.wipes,
            "operations": self.operations,
            "operations_by_kind": dict(self.actions),
            "longest_pause_s": round(self.longest_pause, 2),
            "longest_pause_with_quorum_s": round(self.longest_with_quorum, 2),
            "restart_s": percentiles(self.restarts),
            "restart_to_vote_s": percentiles(self.votes),
            "memory_mib": self.memory.figures(),
            "disk_mib": self.disk.figures(),
            "events": dict(self.events),
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """How many there are, and how they are distributed."""
    ordered = sorted(values)
    found: dict[str, float] = {"count": len(ordered)}
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        if ordered:
            found[name] = round(ordered[min(int(len(ordered) * part), len(ordered) - 1)], 2)
    return found


def table(figures: dict[str, Any], verdict: str) -> Table:
    """The same for people."""
    made = Table(show_header=False)
    made.add_column()
    made.add_column(overflow="fold")
    for name, text in _rows(figures):
        made.add_row(name, text)
    made.add_row("verdict", verdict)
    return made


def _rows(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(figures["kills_by_kind"].items()))
    yield "kills", f"{figures['kills']}" + (f": {kinds}" if kinds else "")
    yield "stops (SIGSTOP)", str(figures["stops"])
    if figures["wipes"]:
        yield "wiped disks", str(figures["wipes"])
    yield "operations", f"{figures['operations']} acknowledged; epochs checked: {figures['epochs']}"
    yield "longest pause", f"{figures['longest_pause_s']:.2f} s"
    yield "... while a quorum ran", f"{figures['longest_pause_with_quorum_s']:.2f} s"
    yield "restart until it listens", _distribution(figures["restart_s"])
    yield "... until it votes", _distribution(figures["restart_to_vote_s"])
    yield "memory of a replica", _bounded(figures["memory_mib"])
    yield "disk of a replica", _bounded(figures["disk_mib"])
    yield "events", ", ".join(f"{n} {event}" for event, n in sorted(figures["events"].items()))
    yield "duration", f"{figures['seconds']:.0f} s"


def _distribution(found: dict[str, float]) -> str:
    parts = [f"{name} {value:.2f} s" for name, value in found.items() if name != "count"]
    return ", ".join([*parts, f"{found['count']:.0f} times"])


def _bounded(found: dict[str, Any]) -> str:
    trend = found["growth_per_hour"]
    growth = "" if trend is None else f"; {trend:+.1f} MiB per hour in the second half"
    ends = f"first {found['first']} MiB, last {found['last']} MiB, " if found["ends"] else ""
    return f"{ends}max {found['max']} MiB of {found['bound']} MiB allowed{growth}"


# --- where the numbers come from ---------------------------------------------------------------


def memory_bytes(pids: dict[int, int]) -> dict[int, int]:
    """The memory of each replica's process, without mapped files; only where it can be told."""
    found = {replica: private_bytes(pid) for replica, pid in pids.items()}
    return {replica: size for replica, size in found.items() if size is not None}


def allocated_bytes(folder: Path) -> int:
    """What the files below `folder` take of the disk; sparse ones take less than their size."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:  # it has just been removed
            continue
    return total
