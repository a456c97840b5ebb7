"""The target of a state transfer: when it moves on, and what is done meanwhile (R23, R24)."""

import pytest
from cores import SMALL, Cores, sent, summary_of
from late import LATE, SOURCES, TIMEOUT_MS, K, answer, asked, begun, certify, commit, installed

from pbft.core import events
from pbft.core.execution import AHEAD
from pbft.core.state_transfer import ROOTS
from pbft.messages import (
    FetchBatches,
    FetchState,
    StateNodes,
    Status,
    Suspect,
)


@pytest.fixture
def cores() -> Cores:
    return Cores()


@pytest.mark.rule("R23")
def test_a_newer_target_replaces_one_that_nobody_serves_any_more(cores: Cores) -> None:
    begun(cores)
    certify(cores, 4 * K)
    for source in SOURCES:  # the pinned state is gone everywhere
        cores.receive(LATE, StateNodes(source, summary_of(4 * K), ()))
    output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
    assert [body.seq for _, body in asked(output)] == [4 * K]


@pytest.mark.rule("R23")
def test_without_a_newer_target_the_sources_are_asked_again_after_a_while(cores: Cores) -> None:
    begun(cores)
    for source in SOURCES:
        cores.receive(LATE, StateNodes(source, summary_of(4 * K), ()))
    assert not asked(cores.tick(LATE, SMALL.heartbeat_interval_ms))
    assert asked(cores.tick(LATE, TIMEOUT_MS)) == [(0, FetchState(LATE, 2 * K, ROOTS))]


@pytest.mark.rule("R23")
def test_the_target_moves_forward_when_the_batches_after_it_are_gone(cores: Cores) -> None:
    """Nobody has them any more: finishing it would be for nothing. What is installed stays."""
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    cores.step(LATE, events.NodesInstalled(0, (b"\x00\x01",), (b"\x00\x02",), 1, 100))
    certify(cores, 4 * K)
    assert not asked(cores.tick(LATE, SMALL.heartbeat_interval_ms))
    certify(cores, 6 * K)
    output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
    assert (0, FetchState(LATE, 6 * K, ROOTS)) in asked(output)
    [note] = [note for note in output.notes if note.event == "state-transfer-moved"]
    assert dict(note.fields) == {"target": 6 * K, "buckets": 1, "bytes": 100}


@pytest.mark.rule("R23")
def test_the_batches_after_the_target_are_fetched_and_kept_until_it_is_there(cores: Cores) -> None:
    """However long it takes: otherwise a replica under load would never catch up."""
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    cores.receive(LATE, Status(0, 0, True, 2 * K + 3, 2 * K, ()))
    output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
    assert sent(output, FetchBatches) == [(0, FetchBatches(LATE, 2 * K + 1, 2 * K + 3))]
    assert [body.known for _, body in sent(output, Status)] == [2 * K]
    last = 2 * K + 5 * SMALL.window
    for seq in range(2 * K + 1, last + 1):
        assert not commit(cores, seq).execute
        if seq % K == 0:
            certify(cores, seq)
            cores.tick(LATE, SMALL.heartbeat_interval_ms)
            target = cores.cores[LATE].transfer.target
            assert target is not None
            assert target.seq == 2 * K, "it stays"
            beat = sent(cores.tick(LATE, SMALL.heartbeat_interval_ms), Status)
            assert [body.known for _, body in beat] == [seq], "votes are wanted from there"
    output = cores.step(LATE, events.StateInstalled(summary_of(2 * K), (), None))
    executed = 0
    while output.execute:
        assert len(output.execute) <= AHEAD, "a few at a time, so that messages are heard"
        for execute in output.execute:
            output = cores.step(LATE, events.Executed(execute.seq, None, (), None))
            executed = execute.seq
    assert executed == last


@pytest.mark.rule("R25")
def test_batches_that_a_replica_keeps_for_later_are_bounded(
    cores: Cores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbft.core.consequences.MAX_KEPT_BYTES", 50_000)
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    moved = []
    for seq in range(2 * K + 1, 40 * K + 1):
        commit(cores, seq)
        if seq % K == 0:
            certify(cores, seq)
            output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
            moved += [body.seq for _, body in asked(output)]
        assert len(cores.cores[LATE].log.above(0)) < 10 * SMALL.window
    assert moved, "the target moves instead"


@pytest.mark.rule("R26")
def test_a_replica_that_fetches_a_state_does_not_blame_the_primary_for_what_it_cannot_see(
    cores: Cores,
) -> None:
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    cores.step(LATE, events.Received(cores.request(bundle=1), 1))
    voices = []
    for _ in range(30):
        cores.receive(LATE, Status(0, 0, True, 9, 0, ()))
        voices += sent(cores.tick(LATE, SMALL.heartbeat_interval_ms), Suspect)
    assert not voices
    cores.step(LATE, events.StateInstalled(summary_of(2 * K), (), None))
    for _ in range(30):
        cores.receive(LATE, Status(0, 0, True, 9, 0, ()))
        voices += sent(cores.tick(LATE, SMALL.heartbeat_interval_ms), Suspect)
    assert voices


@pytest.mark.rule("R23")
def test_a_target_that_is_still_served_is_not_replaced(cores: Cores) -> None:
    begun(cores)
    certify(cores, 4 * K)
    assert not asked(cores.tick(LATE, SMALL.heartbeat_interval_ms))


@pytest.mark.rule("R24")
def test_nothing_is_executed_while_the_state_is_replaced(cores: Cores) -> None:
    begun(cores)
    assert [execute.seq for execute in commit(cores, 1).execute] == [1], "not given up yet"
    cores.step(LATE, events.Executed(1, None, (), None))
    cores.receive(LATE, answer(0, *ROOTS))
    assert not commit(cores, 2).execute
    assert not commit(cores, 2 * K + 1).execute
    output = cores.step(LATE, events.StateInstalled(summary_of(2 * K), (), None))
    assert [execute.seq for execute in output.execute] == [2 * K + 1], "not 2: it is in the state"


@pytest.mark.rule("R24")
def test_a_transfer_that_ordering_has_overtaken_is_dropped(cores: Cores) -> None:
    begun(cores, seq=K)
    for seq in range(1, K + 1):
        commit(cores, seq)
        cores.step(LATE, events.Executed(seq, summary_of(seq) if seq == K else None, (), None))
    output = cores.receive(LATE, answer(0, *ROOTS, seq=K))
    assert not output.transfer
    assert [execute.seq for execute in commit(cores, K + 1).execute] == [K + 1]
    assert not asked(cores.tick(LATE, 10 * TIMEOUT_MS))


@pytest.mark.rule("R25")
def test_batches_that_the_fetched_state_contains_are_not_kept(cores: Cores) -> None:
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    for seq in range(1, 3 * K + 1):
        commit(cores, seq)
    certify(cores, 3 * K)
    kept = [slot.seq for slot in cores.cores[LATE].log.above(0)]
    assert kept == list(range(K + 1, 3 * K + 1)), "one interval more, for peers"
