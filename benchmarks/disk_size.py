"""`make bench-disk`: what a cluster's disks take as it overwrites the same keys, and at the most.

First, an hour of simulated time: four replicas as they ship, on real LMDB files, virtual time and a
simulated network, and one client that overwrites 1,000 keys at a steady rate. Nothing is synced,
which changes nothing in what LMDB writes where. Then, how large the file of a full state gets in
bad cases: everything in it is rewritten between two checkpoints, again and again.

Exit code 1 if the state still grows in the second half of the hour, if the log is much larger than
what it holds, or if a full state takes more
than a replica makes room for.
"""

import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from random import Random

import click
from msgspec import Struct
from rich.console import Console

from client.session import ClientSession
from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import Put, encode
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.node.space import PAGES_PER_BYTE, room_within
from pbft.node.state_sync import PINNED_CHECKPOINTS
from pbft.simulation.machine import Machine, Observer
from pbft.simulation.network import Network
from pbft.simulation.scenario import SECOND
from pbft.simulation.signing import KeyedHashRegistry, KeyedHashSigner
from pbft.simulation.wire import Directory
from pbft.simulation.world import START_OF_TIME, World
from pbft.storage.data_directory import DataDirectory, open_data_directory
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.page_file import PageFile
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_size import ENTRY_BYTES
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- disk size: written by `make bench-disk` -->\n", "<!-- end of disk size -->\n"
REPLICAS, KEYS, VALUE_BYTES = 4, 1_000, 100
MIB = 1024**2
MOST_GROWTH, MOST_SLACK = 0.05, 2.0
SHOWN = (1, 2, 5, 10, 20, 30, 40, 50, 60)  # minutes
VALUES = (1, 100, 1_100, 2_000, 4_090)  # bytes: the worst lie just above a half or a whole page
FULL_BYTES, REWRITES = 20_000_000, 8
PARAMETERS = Parameters(heartbeat_interval_ms=1_000, heartbeat_timeout_ms=5_000)


class Sample(Struct, frozen=True):
    """The sizes of one file: bytes that it takes, pages in it and those that are in use."""

    taken: int
    pages: int
    used: int


class Moment(Struct, frozen=True):
    """Both files of every replica after so many minutes."""

    minute: int
    log: tuple[Sample, ...]
    state: tuple[Sample, ...]

    def largest(self) -> tuple[Sample, Sample]:
        """The largest log and the largest state."""
        by_size = [max(file, key=lambda sample: sample.taken) for file in (self.log, self.state)]
        return by_size[0], by_size[1]


def sample(database: LmdbDatabase, file: Path) -> Sample:
    """How large it is now; what older states alone hold counts as free."""
    with PageFile(file) as pages:
        used = database.pages - pages.free_pages()
    return Sample(taken(file), database.pages, used)


def taken(file: Path) -> int:
    """The bytes that it takes on the disk."""
    return file.stat().st_blocks * 512


# --- an hour ---------------------------------------------------------------------------------


class Overwriter:
    """A client process that puts new values under the same keys, so many per second."""

    endpoint = "c0"

    def __init__(self, hour: "Hour", signer: KeyedHashSigner, rate: int) -> None:
        self._hour, self._rate = hour, rate
        self._session = ClientSession(hour.config, signer, hour.registry, 1)
        self._puts = self._endless()
        self.done = 0
        hour.directory.add_client(self.endpoint, signer.public_key)
        hour.network.attach(self.endpoint, self._receive)
        self._wake: int | None = None
        hour.world.after(SECOND, self._next)

    def _endless(self) -> Iterator[bytes]:
        random, number = Random(1), 0
        while True:
            yield encode(Put(b"key-%d" % (number % KEYS), random.randbytes(VALUE_BYTES)))
            number += 1

    def _next(self) -> None:
        for _ in range(self._rate):
            self._session.submit(next(self._puts))
        self._poll()
        self._hour.world.after(SECOND, self._next)

    def _receive(self, sender: str, raw: bytes) -> None:
        replica = self._hour.directory.identity(sender)
        assert isinstance(replica, int)
        self._session.receive(replica, raw)
        self._poll()

    def _poll(self) -> None:
        hour = self._hour
        output = self._session.poll(START_OF_TIME + hour.world.now)
        for replica, packet in output.sends:
            for endpoint in hour.directory.machines(replica):
                hour.network.send(self.endpoint, endpoint, packet)
        for completion in output.completions:
            assert isinstance(completion.result, bytes), completion.result
            self.done += 1
        if output.wake_at is not None:
            self._sleep_until(output.wake_at - START_OF_TIME)

    def _sleep_until(self, time: int) -> None:
        if self._wake is None or not self._hour.world.now < self._wake <= time:
            self._wake = time
            self._hour.world.at(time, lambda: self._wake == time and self._poll())


class Hour:
    """Four machines on LMDB, on virtual time."""

    def __init__(self, folder: Path, rate: int) -> None:
        self.world = World(1)
        self.network = Network(self.world)
        self.directory = Directory()
        self.registry = KeyedHashRegistry()
        signers = [self.registry.signer(b"replica %d" % i) for i in range(REPLICAS)]
        client = self.registry.signer(b"client")
        self.config = ClusterConfig(
            tuple(ReplicaInfo(i, "simulated", 1 + i, s.public_key) for i, s in enumerate(signers)),
            (ClientInfo("client-0", client.public_key),),
            PARAMETERS,
        )
        self._folders = [folder / f"replica-{replica}" for replica in range(REPLICAS)]
        self._disks = [self._open(replica) for replica in range(REPLICAS)]
        self.machines = [self._machine(replica, signer) for replica, signer in enumerate(signers)]
        self.client = Overwriter(self, client, rate)

    def _open(self, replica: int) -> DataDirectory:
        room = room_within(self.config, None)
        return open_data_directory(
            self._folders[replica],
            self.config.cluster_id,
            replica,
            durable=False,
            log_map_bytes=room.log,
            state_map_bytes=room.state,
        )

    def _machine(self, replica: int, signer: KeyedHashSigner) -> Machine:
        machine = Machine(
            self.world,
            self.network,
            self.directory,
            self.config,
            replica,
            signer,
            self.registry,
            KeyValueStore,
            Observer(),
        )
        machine.log_disk, machine.state_disk = self._disks[replica].log, self._disks[replica].state
        return machine

    def run(self, minutes: int) -> Iterator[Moment]:
        """Let time pass; the sizes after each minute."""
        for machine in self.machines:
            machine.start()
        for minute in range(1, minutes + 1):
            self.world.run_until(minute * 60 * SECOND)
            assert all(machine.alive for machine in self.machines)
            yield Moment(minute, self._samples("log"), self._samples("state"))

    def _samples(self, name: str) -> tuple[Sample, ...]:
        return tuple(
            sample(getattr(disk, name), folder / name / "data.mdb")
            for disk, folder in zip(self._disks, self._folders, strict=True)
        )

    def close(self) -> None:
        """Let go of the files."""
        for machine, disk in zip(self.machines, self._disks, strict=True):
            if machine.node is not None:
                machine.node.close()
            disk.close()


def growth(moments: list[Moment]) -> float:
    """By which part the largest state has grown in the second half."""
    (_, before), (_, after) = moments[len(moments) // 2 - 1].largest(), moments[-1].largest()
    return after.pages / before.pages - 1


def slack(moments: list[Moment]) -> float:
    """How many times as large the largest log is as what was in use at the end of any minute.

    It has steps: a replica that executes a checkpoint later than a quorum of others keeps the log
    of one interval more for that time.
    """
    logs = [moment.largest()[0] for moment in moments]
    return logs[-1].pages / max(log.used for log in logs)


# --- a full state ----------------------------------------------------------------------------


def full_state(folder: Path, value_bytes: int) -> float:
    """Bytes of file per byte that counts, for a state of entries with values of this size."""
    entries = FULL_BYTES // (16 + value_bytes + ENTRY_BYTES)
    random = Random(value_bytes)
    keys = [random.randbytes(16) for _ in range(entries)]
    bound = PAGES_PER_BYTE * FULL_BYTES
    database = LmdbDatabase(folder, STATE_TABLES, bound, durable=False)
    store, pins = StateStore(database), deque[PinnedState]()
    for number in range(1 + REWRITES):
        random.shuffle(keys)
        store.begin_batch(number + 1, 0)
        for key in keys:
            store.application.put(key, random.randbytes(value_bytes))
        store.flush()
        pins.append(store.pin())
        while len(pins) > (1 if pins[-1].crowded else PINNED_CHECKPOINTS):
            pins.popleft().close()
    ratio = taken(folder / "data.mdb") / store.application.size.exact()
    for pin in pins:
        pin.close()
    database.close()
    return ratio


# --- the page --------------------------------------------------------------------------------


def section(moments: list[Moment], done: int, rate: int, ratios: dict[int, float]) -> str:
    """The part of docs/performance.md."""
    rows = [_row(moment) for moment in moments if moment.minute in SHOWN]
    values = ", ".join(f"{ratio:.1f} with {size:,} bytes" for size, ratio in ratios.items())
    return "\n".join(
        [
            f"{REPLICAS} replicas, {KEYS:,} keys of the key-value store, {rate} puts of "
            f"{VALUE_BYTES} bytes per second in one batch per second; {done:,} puts in "
            f"{moments[-1].minute} minutes of simulated time. The largest of each file:",
            "",
            "| minute | log MiB | pages in use | state MiB | pages in use |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"In the second half the state grew by {100 * growth(moments):.1f} %: a key's record "
            "grows with the logarithm of its changes, numbers get longer, and pages settle. The "
            f"log has {slack(moments):.1f} times the pages that were in use at the end of any "
            "minute: a replica that executes a checkpoint later than a quorum of others keeps one "
            "interval more for a while, and the file keeps its length.",
            "",
            "A full state of which everything is rewritten between two checkpoints takes, per byte "
            f"that counts and by the size of its values, so many bytes of file: {values}. A "
            f"replica makes room for {PAGES_PER_BYTE}.",
            "",
        ]
    )


def _row(moment: Moment) -> str:
    cells = [str(moment.minute)]
    for file in moment.largest():
        cells += [f"{file.taken / MIB:.1f}", f"{file.used:,} of {file.pages:,}"]
    return "| " + " | ".join(cells) + " |"


def write(text: str, page: Path) -> None:
    """Put the section between its marks; at the end of the page where there are none."""
    before, found, rest = page.read_text().partition(BEGIN)
    if not found:
        before = before.rstrip("\n") + "\n\n## The size of the disks\n\n"
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + text + END + after)


@click.command()
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(2))
@click.option("--rate", default=50, show_default=True, help="Puts per second.")
@click.option("--page", default=ROOT / "docs" / "performance.md", type=click.Path(path_type=Path))
def main(minutes: int, rate: int, page: Path) -> None:
    """Measure, print, and write docs/performance.md."""
    console, moments = Console(), []
    with tempfile.TemporaryDirectory(prefix="pbft-disk-") as temporary:
        folder = Path(temporary)
        hour = Hour(folder, rate)
        for moment in hour.run(minutes):
            moments.append(moment)
            console.print(_row(moment))
        hour.close()
        ratios = {size: full_state(folder / f"full-{size}", size) for size in VALUES}
    text = section(moments, hour.client.done, rate, ratios)
    console.print(text)
    write(text, page)
    if growth(moments) > MOST_GROWTH or slack(moments) > MOST_SLACK:
        sys.exit("the files still grow")
    if max(ratios.values()) > PAGES_PER_BYTE:
        sys.exit("a full state takes more than a replica makes room for")


if __name__ == "__main__":
    main()
