"""Serving checkpoints to replicas that are behind: for how long, and at what price (R23, R25)."""

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from cores import Cores

from pbft.codec import decode_body
from pbft.core.context import Instant
from pbft.messages import Envelope, FetchState, StateNodes
from pbft.node.divergence import show
from pbft.node.state_sync import (
    IN_USE_US,
    MAX_AGE_US,
    MAX_GROWTH_BYTES,
    MAX_PINS,
    SERVED_BURST_BYTES,
    PinnedCheckpoints,
    StateServer,
)
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES


class Clock:
    """A clock that the test moves (µs)."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> Instant:
        return Instant(self.time, self.time)


class Sent:
    """A transport that notes what goes to whom; each packet takes `took` µs to make and send."""

    def __init__(self, clock: Clock, took: int = 0) -> None:
        self.to: list[int] = []
        self.answers: list[StateNodes] = []
        self._clock, self._took = clock, took

    def send(self, to: int, packet: Envelope) -> None:
        self._clock.time += self._took
        self.to.append(to)
        body = decode_body(packet.body)
        assert isinstance(body, StateNodes)
        self.answers.append(body)


def filled(size: int, seq: int = 1) -> StateStore:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    for number in range(1, seq + 1):
        store.begin_batch(number, 10)
    store.application.put(b"k", bytes(size))
    store.flush()
    return store


def server(clock: Clock, sent: Sent, *states: PinnedState) -> StateServer:
    pins = PinnedCheckpoints()
    for state in states:
        pins.pin(state, clock.time)
    return StateServer(Cores().contexts[0], pins, sent, clock)


def ask(served: StateServer, fetch: FetchState) -> int:
    """How often the budget stood in the way."""
    counters: Counter[str] = Counter()
    served.ask(fetch)
    served.work(counters)
    return counters["state-serving-budget"]


@pytest.mark.rule("R25")
@pytest.mark.parametrize("size", [0, SERVED_BURST_BYTES // 8])
def test_serving_state_has_a_budget_per_peer_that_counts_paths_and_bytes(size: int) -> None:
    clock = Clock()
    sent = Sent(clock)
    served = server(clock, sent, filled(size).pin())
    paths = (b"\x00",) if size else tuple(bytes([0, n // 16, n % 16]) for n in range(64))
    refused = [ask(served, FetchState(1, 1, paths)) for _ in range(1000)].count(1)
    assert 0 < len(sent.to) < 150
    assert refused == 1
    assert set(sent.to) == {1}
    served.ask(FetchState(2, 1, (b"\x00",)))
    for _ in range(2):
        clock.time += 1000
        served.work(Counter())
    assert 2 in sent.to, "another peer has its own"
    clock.time += 10_000_000
    served.work(Counter())
    assert served.wake_at is None, "the question has waited, and is answered"


@pytest.mark.rule("R25")
def test_of_each_peer_one_question_waits() -> None:
    clock = Clock()
    sent = Sent(clock, took=1000)
    served = server(clock, sent, filled(1).pin())
    assert served.wake_at is None
    for paths in ((b"\x00",), (b"\x01",)):
        served.ask(FetchState(1, 1, paths))
    served.ask(FetchState(2, 1, (b"\x00",)))
    while served.wake_at is not None:
        clock.time = max(clock.time + 1, served.wake_at)
        served.work(Counter())
    assert [(to, body.nodes[0].path) for to, body in zip(sent.to, sent.answers, strict=True)] == [
        (1, b"\x01"),
        (2, b"\x00"),
    ]


@pytest.mark.rule("R25")
@pytest.mark.parametrize(("busy", "least", "most"), [(True, 0.012, 0.022), (False, 0.5, 0.9)])
def test_serving_takes_a_small_part_of_a_busy_replicas_time(
    busy: bool, least: float, most: float
) -> None:
    clock = Clock()
    sent = Sent(clock, took=5000)
    served = server(clock, sent, filled(1).pin())
    while clock.time < 3_000_000:
        if busy:
            served.executed()
        served.ask(FetchState(1, 1, (b"\x00",)))
        served.work(Counter())
        clock.time += 1000
    assert least < len(sent.to) * 5000 / clock.time < most


@pytest.mark.rule("R23")
def test_a_checkpoint_that_is_in_use_stays_while_newer_ones_come_but_not_for_ever() -> None:
    pins = PinnedCheckpoints()
    pins.pin(filled(1, seq=1).pin(), 0)
    assert pins.use(1, 0)
    kept = []
    for number in range(2, 2000):
        now = number * 1_000_000
        pins.pin(filled(1, seq=number % 50 + 50).pin(), now)
        if number % 5 == 0:
            kept.append(pins.use(1, now) is not None)
    age = kept.index(False) * 5_000_000
    assert MAX_AGE_US - 10_000_000 <= age <= MAX_AGE_US + 10_000_000
    assert not any(kept[kept.index(False) :])


@pytest.mark.rule("R23")
def test_a_checkpoint_that_nobody_uses_any_more_goes() -> None:
    pins = PinnedCheckpoints()
    pins.pin(filled(1, seq=1).pin(), 0)
    assert pins.use(1, 0)
    for number in range(2, 10):
        pins.pin(filled(1, seq=number).pin(), IN_USE_US + number)
    assert pins.use(1, IN_USE_US + 100) is None
    assert [seq for seq in range(10) if pins.use(seq, IN_USE_US + 100)] == [7, 8, 9]


@pytest.mark.rule("R25")
def test_pins_in_use_are_bounded_in_number_and_by_what_they_make_the_file_grow() -> None:
    pins = PinnedCheckpoints()
    states = [filled(1, seq=number).pin() for number in range(1, 30)]
    for state in states:
        pins.pin(state, 0)
        assert pins.use(state.summary.seq, 0)
    assert len([seq for seq in range(1, 30) if pins.use(seq, 0)]) == MAX_PINS
    pins = PinnedCheckpoints()
    large = Grown(filled(1, seq=1).pin())
    for state in (large, *states[1:5]):
        pins.pin(state, 0)  # type: ignore[arg-type]
        pins.use(state.summary.seq, 0)
    assert [pins.use(seq, 0) is None for seq in (1, 2)] == [True, False]


class Grown:
    """A state that keeps more of the file than it may."""

    growth = MAX_GROWTH_BYTES + 1
    crowded = False

    def __init__(self, state: PinnedState) -> None:
        self.summary, self.close = state.summary, state.close


def state_of(value: bytes, keys: int) -> PinnedState:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    store.begin_batch(1, 10)
    for number in range(keys):
        store.application.put(b"%d" % number, b"same")
    store.application.put(b"7", value)
    store.flush()
    return store.pin()


@pytest.mark.rule("R23")
def test_older_checkpoints_are_let_go_where_room_is_scarce() -> None:
    store = StateStore(database := MemoryDatabase(STATE_TABLES))
    pins = PinnedCheckpoints()

    def checkpoint(seq: int) -> int:
        """How many states are served after one more."""
        store.begin_batch(seq, 10)
        store.flush()
        pins.pin(store.pin(), 0)
        return sum(pins.use(each, 0) is not None for each in range(1, seq + 1))

    assert [checkpoint(seq) for seq in (1, 2, 3, 4)] == [1, 2, 3, 4], "those in use too"
    type(database).crowded, before = True, type(database).crowded
    try:
        assert checkpoint(5) == 1
    finally:
        type(database).crowded = before


@pytest.mark.rule("R25")
def test_a_node_that_is_asked_for_again_and_again_is_sent_once() -> None:
    clock = Clock()
    sent = Sent(clock)
    ask(server(clock, sent, filled(100_000).pin()), FetchState(1, 1, (b"\x00",) * 64))
    assert [node.path for node in sent.answers[0].nodes] == [b"\x00"]


@pytest.mark.rule("R22")
@pytest.mark.parametrize("keys", [10, 5000])
def test_replicas_that_halt_show_in_which_buckets_and_keys_their_states_differ(
    tmp_path: Path, keys: int
) -> None:
    shown, listings = [], []
    for value in (b"one", b"other"):
        folder = tmp_path / value.decode()
        folder.mkdir()
        shown.append([dict(note.fields) for note in show(state_of(value, keys), 1, folder)])
        assert shown[-1][0]["file"] == str(folder / "divergence-1.txt")
        assert (folder / "divergence-1.txt").stat().st_mode & 0o077 == 0
        listings.append((folder / "divergence-1.txt").read_text().splitlines())
    differing = [pair for pair in zip(*listings, strict=True) if pair[0] != pair[1]]
    assert len(listings[0]) == keys
    [(one, other)] = [(one.split(), other.split()) for one, other in differing]
    assert one[:2] == other[:2] == [one[0], "b'7'"]
    path = one[0].removeprefix("application/")
    assert sha256(b"7").hexdigest().startswith(path)
    assert bool(path) is (keys > 32)
    (application, sessions), (others, same) = shown
    assert sessions["parts"] == same["parts"]
    parts = zip(application["parts"].split(","), others["parts"].split(","), strict=True)
    assert [one == two for one, two in parts].count(False) == 1


@pytest.mark.rule("R22")
def test_a_replica_that_cannot_write_down_where_it_differs_says_why(tmp_path: Path) -> None:
    [note] = show(state_of(b"one", 10), 1, tmp_path / "nowhere")
    assert "No such file" in str(dict(note.fields)["missing"])
    [note] = show(None, 1, tmp_path)
    assert dict(note.fields) == {"seq": 1, "missing": "this state is not kept any more"}
    assert list(tmp_path.iterdir()) == []
