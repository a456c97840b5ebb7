"""Replays a recording: at every moment when something becomes durable, what if the power fails?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from tests.power_loss.disk_check import (
    Allowed,
    Lost,
    check_image,
    check_state,
    put_image,
)
from tests.power_loss.disk_model import Choice, Disk, Image
from tests.power_loss.losses import Plan, losses
from tests.power_loss.marks import Content, Mark
from tests.power_loss.recording import calls

EMPTY = Allowed([], [], first_start=True)


class Moment(Struct, frozen=True):
    """Just before something becomes durable, or the `last` one, at the end; counted from 0."""

    number: int
    disk: Disk
    allowed: Allowed
    last: bool = False


class History:
    """What the marks have said of one database so far; `before` them one of those was there."""

    def __init__(self, before: Sequence[Content] = ()) -> None:
        self._before = before
        self.content: Content | None = None
        self.next: Content | None = None

    def hear(self, mark: Mark) -> None:
        """Follow one mark. Raises Lost for a state that is inconsistent in itself."""
        if mark.what == "opened":
            found = _changed({}, mark)
            known = self._before if self.content is None else [self.content]
            if known and found not in known:
                raise Lost("a stop and a start have changed the content")
            self.content, self.next = found, None
        elif mark.what == "begun":
            assert self.content is not None
            self.next = _changed(self.content, mark)
            if mark.database == "state":
                check_state(self.next)
        else:
            self.content, self.next = self.next, None

    @property
    def allowed(self) -> list[Content]:
        """What may be on the disk: what was acknowledged, or that with what has begun."""
        return [content for content in (self.content, self.next) if content is not None]


def _changed(content: Content, mark: Mark) -> Content:
    changed = dict(content)
    for table, key, value in mark.writes:
        if value is None:
            changed.pop((table, key), None)
        else:
            changed[table, key] = value
    return changed


def moments(
    recording: Path,
    root: Path,
    *,
    base: Image | None = None,
    before: Allowed = EMPTY,
    deaf: bool = False,
) -> Iterator[Moment]:
    """All moments of a recording of the folder `root`, the end included.

    It began with `base` on the disk, of which `before` is known. A `deaf` disk ignores every sync
    of a file: the control that the replay would notice.
    """
    disk, number = Disk(root), 0
    disk.load(base or {})
    first = before.first_start
    histories = {
        "log": History(() if first else before.log),
        "state": History(() if first else before.state),
    }
    for call in calls(recording):
        if call.kind == "K":
            mark = msgspec.msgpack.decode(call.payload, type=Mark)
            histories[mark.database].hear(mark)
        elif disk.begin(call):
            if disk.pending:
                yield Moment(number, disk, _allowed(histories, before))
                number += 1
            if not (deaf and disk.syncs_file(call)):
                disk.finish(call)
    yield Moment(number, disk, _allowed(histories, before), last=True)


def _allowed(histories: dict[str, History], before: Allowed) -> Allowed:
    log, state = histories["log"].allowed, histories["state"].allowed
    if log and state:
        return Allowed(log, state)
    return Allowed(log or before.log, state or before.state, before.first_start)


class Report(Struct):
    """What came of a replay: what was found how often, and what was wrong, with one way to it."""

    moments: int = 0
    images: int = 0
    found: Counter[str] = msgspec.field(default_factory=Counter)
    failures: Counter[str] = msgspec.field(default_factory=Counter)
    examples: dict[str, str] = msgspec.field(default_factory=dict)

    def add(self, other: "Report") -> None:
        """Count another one in."""
        self.moments += other.moments
        self.images += other.images
        self.found.update(other.found)
        self.failures.update(other.failures)
        self.examples = other.examples | self.examples


class Tester:
    """Tries losses on the shipped program, in a folder of its own."""

    def __init__(self, work: Path, cluster_id: bytes, plan: Plan) -> None:
        self._work = work
        self._cluster_id = cluster_id
        self._plan = plan
        self.report = Report()

    def try_all(self, moment: Moment) -> None:
        """Every loss of the plan at one moment; images that are alike once."""
        self.report.moments += 1
        tried: set[int] = set()
        for choice in losses(moment.disk.pending, self._plan, f"moment {moment.number}"):
            image = moment.disk.after_power_loss(choice)
            alike = hash(frozenset(image.items()))
            if alike not in tried:
                tried.add(alike)
                self.try_one(moment, choice, image)

    def try_one(self, moment: Moment, choice: Choice, image: Image) -> None:
        """Let the program get along with `image`."""
        self.report.images += 1
        folder = self._work / "image"
        put_image(image, folder, Random(f"{moment.number} {self.report.images}"))
        try:
            self.report.found[check_image(folder, self._cluster_id, moment.allowed)] += 1
        except Lost as lost:
            self.report.failures[str(lost)] += 1
            self.report.examples.setdefault(str(lost), _describe(moment, choice))


def _describe(moment: Moment, choice: Choice) -> str:
    kept = [
        f"{_name(change.name, change.of)}+{change.at}:{mask:#x}"
        for change, mask in zip(moment.disk.pending, choice, strict=True)
        if mask
    ]
    return f"moment {moment.number}, {len(choice)} pending, kept: {' '.join(kept[:8]) or 'nothing'}"


def _name(name: str, inode: int) -> str:
    return name or f"inode {inode}"
