"""Serving checkpoints to replicas that are behind: within a budget per peer (R25)."""

import pytest
from cores import Cores

from pbft.messages import FetchState
from pbft.node.state_sync import SERVED_BURST_BYTES, PinnedCheckpoints
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES


class Sent(list):
    """A transport that notes to whom something goes."""

    def send(self, to: int, _packet: object) -> None:
        self.append(to)


def filled(size: int) -> StateStore:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    store.begin_batch(1, 10)
    store.application.put(b"k", bytes(size))
    store.flush()
    return store


@pytest.mark.rule("R25")
@pytest.mark.parametrize("size", [0, SERVED_BURST_BYTES // 8])
def test_serving_state_has_a_budget_per_peer_that_counts_paths_and_bytes(size: int) -> None:
    sent = Sent()
    pins = PinnedCheckpoints(Cores().contexts[0], sent)
    pins.pin(filled(size).pin())
    paths = (b"\x00",) if size else tuple(bytes([0, n // 16, n % 16]) for n in range(64))
    fetch = FetchState(1, 1, paths)
    served = [pins.serve(fetch, 0) for _ in range(1000)].count(True)
    assert 0 < served < 20
    assert pins.serve(FetchState(2, 1, (b"\x00",)), 0)
    assert pins.serve(fetch, 10_000_000)
    assert sent == [1] * served + [2, 1]


@pytest.mark.rule("R23")
def test_older_checkpoints_are_let_go_where_room_is_scarce() -> None:
    store = StateStore(database := MemoryDatabase(STATE_TABLES))
    pins = PinnedCheckpoints(Cores().contexts[0], sent := Sent())

    def checkpoint(seq: int) -> int:
        """How many states are served after one more."""
        store.begin_batch(seq, 10)
        store.flush()
        pins.pin(store.pin())
        return sum(bool(list(pins.describe(each))) for each in range(1, seq + 1))

    assert [checkpoint(seq) for seq in (1, 2, 3, 4)] == [1, 2, 3, 3]
    type(database).crowded, before = True, type(database).crowded
    try:
        assert checkpoint(5) == 1
    finally:
        type(database).crowded = before
    assert sent == []


@pytest.mark.rule("R22")
def test_states_that_differ_show_it_in_their_description() -> None:
    """Two replicas that halted: what their logs say differs just where their states do."""
    lines = []
    for value in (b"one", b"other"):
        store = StateStore(MemoryDatabase(STATE_TABLES))
        store.begin_batch(1, 10)
        for number in range(1000):
            store.application.put(b"%d" % number, b"same")
        store.application.put(b"7", value)
        store.flush()
        pins = PinnedCheckpoints(Cores().contexts[0], Sent())
        pins.pin(store.pin())
        lines.append([dict(note.fields) for note in pins.describe(1)])
        assert list(pins.describe(2)) == []
    (application, sessions), (other, same) = lines
    assert sessions == same
    parts = zip(application["parts"].split(","), other["parts"].split(","), strict=True)
    assert [one == two for one, two in parts].count(False) == 1
    assert len(application["parts"].split(",")) == 16
