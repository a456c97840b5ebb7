"""Whole scenarios as text: `PBFT_UPDATE_GOLDEN=1 pytest tests/golden` rewrites them for review."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cores import Cores

from pbft.codec import decode_body
from pbft.core import events
from pbft.core.batches import NULL_CONTENT
from pbft.messages import Commit, Envelope, Packet, Prepare, Proposal

HERE = Path(__file__).parent


def _propose(cores: Cores, primary: int = 0) -> None:
    cores.step(primary, events.TurnEnded())


def _lose_commits(_sender: int, _receiver: int, packet: Packet) -> bool:
    return isinstance(packet, Envelope) and isinstance(decode_body(packet.body), Commit)


def _cut_off(replica: int) -> Callable[[int, int, Packet], bool]:
    return lambda sender, receiver, _packet: replica in (sender, receiver)


def _time_out(cores: Cores, replicas: tuple[int, ...]) -> None:
    cores.pass_time(1_100)
    for replica in replicas:
        cores.step(replica, events.Tick())


def normal_case(cores: Cores) -> None:
    cores.ask(0, cores.request())
    _propose(cores)
    cores.run()


def view_change_with_a_prepared_request(cores: Cores) -> None:
    request = cores.request()
    for replica in range(4):
        cores.ask(replica, request)
    _propose(cores)
    cores.run(_lose_commits)
    cores.trace.append("--- replica 0 is cut off, the others run out of patience")
    _time_out(cores, (1, 2, 3))
    cores.run(_cut_off(0))


def null_request_fills_a_gap(cores: Cores) -> None:
    first, second = cores.request(client=0), cores.request(client=1)
    for replica in range(4):
        cores.ask(replica, first)
    _propose(cores)
    cores.run(lambda _s, _r, packet: isinstance(packet, Proposal))
    cores.trace.append("--- nobody but the primary has seq 1; seq 2 is prepared everywhere")
    for replica in range(4):
        cores.ask(replica, second)
    _propose(cores)
    cores.run(_lose_commits)
    cores.trace.append("--- replica 0 is cut off, the others run out of patience")
    _time_out(cores, (1, 2, 3))
    cores.run(_cut_off(0))


def checkpoint_and_garbage_collection(cores: Cores) -> None:
    for bundle in range(1, 5):
        cores.ask(0, cores.request(bundle=bundle))
        _propose(cores)
        cores.run()
    for replica, core in enumerate(cores.cores):
        kept = [slot.seq for slot in core.log.above(-1)]
        cores.trace.append(f"{replica}        h={core.log.low} H={core.log.high} keeps {kept}")


def catch_up(cores: Cores) -> None:
    for replica in range(4):
        cores.step(replica, events.Started(replica))
    cores.run()
    for bundle in range(1, 4):
        cores.ask(0, cores.request(bundle=bundle))
        _propose(cores)
        cores.run(_cut_off(3))
    cores.trace.append("--- replica 3 is back, but the others' votes stay lost")
    for _ in range(3):
        cores.pass_time(110)
        for replica in range(4):
            cores.step(replica, events.Tick())
        cores.run(_votes_to_three)


def _votes_to_three(_sender: int, receiver: int, packet: Packet) -> bool:
    if receiver != 3:
        return False
    if isinstance(packet, Proposal):
        return True
    return isinstance(packet, Envelope) and isinstance(decode_body(packet.body), Prepare | Commit)


SCENARIOS = (
    normal_case,
    view_change_with_a_prepared_request,
    null_request_fills_a_gap,
    checkpoint_and_garbage_collection,
    catch_up,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_scenario_reads_as_it_was_reviewed(scenario: Callable[[Cores], None]) -> None:
    cores = Cores()
    scenario(cores)
    text = "\n".join(cores.trace) + "\n"
    path = HERE / f"{scenario.__name__}.txt"
    if os.environ.get("PBFT_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_the_gap_is_executed_as_nothing_and_the_lost_request_after_it() -> None:
    cores = Cores()
    null_request_fills_a_gap(cores)
    assert [core.queue.executed for core in cores.cores] == [0, 3, 3, 3]
    gap = cores.cores[1].log.get(1)
    assert gap is not None
    assert gap.committed == NULL_CONTENT


def test_a_replica_that_missed_every_vote_catches_up() -> None:
    cores = Cores()
    catch_up(cores)
    assert [core.queue.executed for core in cores.cores] == [3, 3, 3, 3]
