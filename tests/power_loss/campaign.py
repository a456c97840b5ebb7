"""Everything that is done with recordings: a life replayed, starts after power cuts, controls."""

import multiprocessing
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE
from pbft.core.certificates import opened
from pbft.messages import Checkpoint
from pbft.node.log_store import LogStore
from pbft.storage.data_directory import open_data_directory
from pbft.storage.state_store import StateStore
from tests.power_loss.disk_check import REPLICA, image_of, put_image
from tests.power_loss.disk_model import NEVER_SYNCED, Disk, Image
from tests.power_loss.losses import Plan, losses
from tests.power_loss.recording import PLACE, calls, compile_recorder, record
from tests.power_loss.replay import Moment, Report, Tester, moments
from tests.processes.running import COMMAND, make_keys, pbft

FAST_DISK = Path("/dev/shm")
DIED = "the process died"


class Chosen(Struct, frozen=True):
    """Which moments are tried: the first ones (those of the first start are about 16), and of the
    others every so many-th; or the last alone."""

    first: int = 0
    every: int = 1
    offset: int = 0
    last: bool = False

    def __contains__(self, moment: Moment) -> bool:
        if self.last:
            return moment.last
        return moment.number < self.first or moment.number % self.every == self.offset


ALL = Chosen()


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for a while, in memory where there is such a place."""
    fast = str(FAST_DISK) if FAST_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="pbft-power-loss-", dir=fast) as made:
        yield Path(made)


def apart(what: Callable[..., Report], *arguments: object) -> Report:
    """Do it in another process, since reading a damaged file may end one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(what, *arguments).result()
        except BrokenProcessPool:
            return Report(failures=Counter({DIED: 1}))


def losses_seen(report: Report) -> bool:
    """Whether a control has lost something in plain words; a dead process may have any reason."""
    return bool(report.failures.keys() - {DIED})


class Life:
    """One recorded life of a replica. Raises Unrecordable."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._library = compile_recorder(work)
        self.keys = work / "keys"
        small = ("--set", "checkpoint_interval=4", "--set", "window=8")
        make_keys(self.keys, 4, "--clients", "3", *small)
        self.cluster_id = load_cluster(self.keys / CLUSTER_FILE).cluster_id
        self.root = self._folder("life")
        self.recording = record(self._library, self.root, "replica", self.keys)

    def _folder(self, name: str) -> Path:
        folder = self._work / name
        folder.mkdir(exist_ok=True)
        return folder

    def moments(self) -> Iterator[Moment]:
        """Every moment of it."""
        return moments(self.recording, self.root)

    def replayed(self) -> tuple[Image, Image]:
        """The folder as the recording says that it must be, and as it is; both without what is
        never synced. They are equal unless the recorder has missed something."""
        disk = Disk(self.root)
        for call in calls(self.recording):
            if call.kind != "K" and disk.begin(call):
                disk.finish(call)
        return _comparable(disk.seen.image()), _comparable(image_of(self.root))

    def try_losses(self, plan: Plan, chosen: Chosen, name: str = "tried") -> Report:
        """Every loss of `plan` at each chosen moment."""
        return self._try(self.moments(), plan, chosen, name)

    def try_without_syncs(self, plan: Plan, chosen: Chosen) -> Report:
        """The same on a disk that ignores them: acknowledged transactions must be missing."""
        return self._try(moments(self.recording, self.root, deaf=True), plan, chosen, "deaf")

    def try_careless(self, plan: Plan) -> Report:
        """A life of its own in which nothing is synced, at its end: the same must be seen."""
        root = self._folder("careless")
        recording = record(self._library, root, "replica", self.keys, "--careless")
        return self._try(moments(recording, root), plan, Chosen(last=True), "careless")

    def _try(self, those: Iterator[Moment], plan: Plan, chosen: Chosen, name: str) -> Report:
        tester = Tester(self._folder(name), self.cluster_id, plan)
        for moment in those:
            if moment in chosen:
                tester.try_all(moment)
        return tester.report

    # --- starts on what a power cut has left -------------------------------------------------

    def images(self, plan: Plan, chosen: Chosen) -> Iterator[tuple[Moment, Image]]:
        """One image of each chosen moment, drawn by lot."""
        for moment in self.moments():
            if moment in chosen:
                choice = Random(moment.number).choice(
                    losses(moment.disk.pending, plan, f"image {moment.number}")
                )
                yield moment, moment.disk.after_power_loss(choice)

    def fail_twice(self, plan: Plan, moment: Moment, image: Image) -> Report:
        """Start on `image`, and let the power fail once more during that start and after it."""
        root = self._folder("again")
        put_image(image, root, Random(moment.number))
        base = image_of(root)
        recording = record(self._library, root, "again", self.keys)
        second = moments(recording, root, base=base, before=moment.allowed)
        return self._try(second, plan, ALL, "twice")

    def start_node(self, moment: Moment, image: Image) -> None:
        """Let `pbft node` run on `image`; it must say that it is where log and state are."""
        root = self._folder("node")
        put_image(image, root, Random(moment.number))
        wanted = self._standing(root / PLACE) if not moment.allowed.first_start else {}
        report = _status_of_node(self.keys, root / PLACE)
        assert {key: report[key] for key in wanted} == wanted
        assert wanted or report["last_executed"] == 0

    def _standing(self, data: Path) -> dict[str, int]:
        directory = open_data_directory(data, self.cluster_id, REPLICA)
        try:
            restored, store = LogStore(directory.log).restore(), StateStore(directory.state)
        finally:
            directory.close()
        stable = opened(restored.stable[0], Checkpoint).seq if restored.stable else 0
        standing = {"view": restored.view.view, "stable_checkpoint": stable}
        if store.transfer_target is None:
            executed = store.seq
            while executed + 1 in restored.slots and restored.slots[executed + 1].certificate:
                executed += 1
            standing["last_executed"] = executed
        return standing


def _comparable(image: Image) -> Image:
    return {path: None if path.endswith(NEVER_SYNCED) else image[path] for path in image}


def _status_of_node(keys: Path, data: Path) -> dict[str, int]:
    """Start replica 1, ask how it is, stop it."""
    command = [
        *COMMAND,
        "node",
        "--replica",
        str(REPLICA),
        "--keys",
        str(keys),
        "--data",
        str(data),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "replica-started" in line, line
            found = _ask(keys)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
        finally:
            process.kill()
    return found


def _ask(keys: Path) -> dict[str, int]:
    """What the only replica that runs says of itself; a busy machine may make it slow."""
    for _ in range(20):
        answer = pbft("status", "--keys", keys, "--timeout", "1", "--json")
        if answer.returncode == 0:
            found: dict[str, int] = msgspec.json.decode(answer.stdout)[REPLICA]
            return found
    raise AssertionError(answer.stderr)
