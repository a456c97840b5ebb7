"""The disk is read again in the background, seldom, and what it finds stops the replica."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from cores import Cores

from pbft.node.scrubber import REST, SLICE_SECONDS, Scrubber
from pbft.node.shell import Shell
from pbft.node.transport import TcpTransport
from pbft.storage.clean_stop import NOTE_NAME
from pbft.storage.data_directory import DataDirectory, open_data_directory
from pbft.storage.database import CorruptRecord, writing
from pbft.storage.state_store import StateStore


class Clock:
    """Each look at it takes a while."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.takes
        return self.now


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    directory = open_data_directory(tmp_path / "data", b"c" * 32, 1)
    store = StateStore(directory.state)
    store.begin_batch(1, 1)
    for number in range(2000):
        store.application.put(b"%d" % number, b"value")
    store.flush()
    return directory


@pytest.mark.parametrize("takes", [SLICE_SECONDS / 7, SLICE_SECONDS * 9])
def test_it_rests_for_far_longer_than_it_works(data: DataDirectory, takes: float) -> None:
    clock = Clock(takes)
    scrubber = Scrubber(data, clock)
    for _ in range(20):
        before = clock.now
        rest = scrubber.work()
        worked = clock.now - before
        assert worked < SLICE_SECONDS + 3 * takes
        assert rest > 0.4 * REST * worked
    assert scrubber.progress.nodes > 0
    data.close()


def test_there_is_no_second_pass_in_one_go(data: DataDirectory) -> None:
    scrubber = Scrubber(data, Clock(1e-9))
    for passes in (1, 2, 3):
        assert scrubber.work() >= 0.1
        assert scrubber.progress.passes == passes
    data.close()


class Idle:
    """A node with nothing to do."""

    waiting = False
    wake_at = None

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.rule("R41")
def test_what_it_finds_stops_the_replica_and_has_the_files_examined_at_the_next_start(
    data: DataDirectory, tmp_path: Path
) -> None:
    with writing(data.state) as transaction:
        transaction.delete("application", b"7")  # behind the tree's back, as a bad disk would
    failures: list[str] = []
    scrubber = Scrubber(data)

    async def scenario() -> None:
        cores, counters = Cores(), Counter[str]()
        stopped = asyncio.Event()

        def stop(reason: str) -> None:
            failures.append(reason)
            stopped.set()

        context, signer = cores.contexts[0], cores.signers[0]
        shell = Shell(context, signer, TcpTransport(counters), counters, stop)
        shell._node = Idle()  # type: ignore[assignment]
        shell.between_turns(scrubber.work)
        await asyncio.wait_for(stopped.wait(), 30)
        await shell.stop()

    asyncio.run(scenario())
    assert len(failures) == 1
    assert failures[0].startswith(
        "the disk does not hold what was written to it (the disk has lost"
    )
    with pytest.raises(CorruptRecord):
        scrubber.work()
    data.close()
    assert not (tmp_path / "data" / NOTE_NAME).exists()
    again = open_data_directory(tmp_path / "data", b"c" * 32, 1)
    assert "'application' and its tree do not hold the same" in again.discarded
    again.close()
