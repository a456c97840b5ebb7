"""The replicated session table by itself."""

from collections.abc import Iterator

import pytest
from sortedcontainers import SortedDict

from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import OK, OperationResult
from pbft.node.sessions import SEARCH_STEP, Outcome, Sessions

ALICE, BOB = b"a" * 32, b"b" * 32
OPENING, DIGEST = b"o" * 32, b"d" * 32
OUTCOME = Outcome(DIGEST, (OperationResult(OK, b"x" * 1000),), 1)


class CountingState:
    """A State in memory; `written` counts bytes of keys and values."""

    def __init__(self) -> None:
        self.entries: SortedDict = SortedDict()
        self.written = 0

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self.entries.get(key)
        return value

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for key in self.entries.irange(start, end, (True, False), reverse):
            yield key, self.entries[key]

    def put(self, key: bytes, value: bytes) -> None:
        self.written += len(key) + len(value)
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)


@pytest.fixture
def state() -> CountingState:
    return CountingState()


@pytest.fixture
def sessions(state) -> Sessions:
    return Sessions(state, per_client=3)


def open_and_run(sessions: Sessions, client: bytes, number: int, *bundles: int) -> None:
    sessions.open((client, number), OPENING, seq=1, time=0)
    for bundle in bundles:
        sessions.record((client, number), bundle, OUTCOME, seq=1 + bundle, time=0)


def acknowledge(sessions: Sessions, key: tuple[bytes, int], upto: int) -> None:
    header = sessions.header(key)
    assert header is not None
    sessions.acknowledge(key, header, upto)


@pytest.mark.rule("R17")
def test_a_table_read_back_from_its_map_is_the_same(state, sessions) -> None:
    open_and_run(sessions, ALICE, 1, 2, 1, 4)
    open_and_run(sessions, BOB, 9, 1)
    acknowledge(sessions, (ALICE, 1), 1)
    sessions.take_changes()
    again = Sessions(state, per_client=3)
    assert again.facts() == (SessionView(ALICE, 1, 1, (2, 4)), SessionView(BOB, 9, 0, (1,)))
    assert again.header((ALICE, 1)) == sessions.header((ALICE, 1))
    assert again.outcome((BOB, 9), 1) == OUTCOME


def test_changes_name_each_touched_session_once(sessions) -> None:
    open_and_run(sessions, ALICE, 1, 1, 2)
    assert sessions.take_changes() == (SessionView(ALICE, 1, 0, (1, 2)),)
    assert sessions.take_changes() == ()


@pytest.mark.rule("R16")
def test_acknowledging_frees_results_and_never_goes_back(state, sessions) -> None:
    open_and_run(sessions, ALICE, 1, 1, 2, 3)
    acknowledge(sessions, (ALICE, 1), 2)
    acknowledge(sessions, (ALICE, 1), 1)
    assert sessions.take_changes() == (SessionView(ALICE, 1, 2, (3,)),)
    assert [sessions.outcome((ALICE, 1), bundle) is None for bundle in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert len(state.entries) == 2


def test_one_executed_bundle_writes_little_beside_its_result(state, sessions) -> None:
    open_and_run(sessions, ALICE, 1, *range(1, 33))
    sessions.take_changes()
    before = state.written
    acknowledge(sessions, (ALICE, 1), 1)
    sessions.record((ALICE, 1), 33, OUTCOME, seq=99, time=0)
    sessions.take_changes()
    assert state.written - before < 1000 + 400


@pytest.mark.rule("R45")
def test_the_least_recently_used_session_makes_room(state, sessions) -> None:
    open_and_run(sessions, ALICE, 5, 1)
    open_and_run(sessions, ALICE, 6)
    open_and_run(sessions, ALICE, 7, 1)
    open_and_run(sessions, BOB, 1, 1)
    sessions.take_changes()
    sessions.open((ALICE, 8), OPENING, seq=50, time=0)
    assert sessions.take_changes() == (EvictedMark(ALICE, 6, 6), SessionView(ALICE, 8, 0, ()))
    # 5 and 7 were last used at once: the lower goes
    sessions.open((ALICE, 9), OPENING, seq=51, time=0)
    assert EvictedMark(ALICE, 5, 6) in sessions.take_changes()
    assert sessions.outcome((ALICE, 5), 1) is None
    assert sessions.outcome((BOB, 1), 1) == OUTCOME
    assert not any(key.startswith(b"o" + ALICE + bytes(7) + b"\5") for key in state.entries)


@pytest.mark.rule("R45")
def test_a_number_at_or_below_the_highest_evicted_one_is_never_free_again(state, sessions) -> None:
    for number in (10, 11, 12, 13):
        sessions.open((ALICE, number), OPENING, seq=number, time=0)
    assert not sessions.is_free((ALICE, 10))
    assert not sessions.is_free((ALICE, 9))
    assert not sessions.is_free((ALICE, 11))
    assert sessions.is_free((ALICE, 14))
    assert sessions.lowest_free(ALICE) == 14
    assert Sessions(state, per_client=3).highest_evicted(ALICE) == 10
    assert sessions.facts()[0] == EvictedMark(ALICE, 10, 10)


def test_session_numbers_begin_at_one(sessions) -> None:
    assert not sessions.is_free((ALICE, 0))
    assert sessions.is_free((ALICE, 1))
    assert sessions.lowest_free(ALICE) == 1


def test_a_replaced_map_is_read_anew(state, sessions) -> None:
    open_and_run(sessions, ALICE, 1, 1)
    state.entries.clear()
    sessions.reload()
    assert sessions.header((ALICE, 1)) is None


# --- sessions of clients long gone -----------------------------------------------------------


@pytest.mark.rule("R45")
def test_an_idle_session_goes_with_all_that_is_kept_for_it(state, sessions) -> None:
    open_and_run(sessions, ALICE, 4, 1, 2)
    sessions.open((ALICE, 7), OPENING, seq=9, time=50)
    sessions.record((ALICE, 7), 1, OUTCOME, seq=10, time=100)
    sessions.take_changes()
    sessions.evict_idle(since=100)
    assert sessions.take_changes() == (EvictedMark(ALICE, 4, 4),)
    assert [sessions.header((ALICE, n)) is None for n in (4, 7)] == [True, False]
    assert sorted(state.entries) == [
        b"c" + ALICE,
        b"h" + ALICE + bytes(7) + b"\7",
        b"o" + ALICE + bytes(7) + b"\7" + bytes(7) + b"\1",
    ]


@pytest.mark.rule("R45")
def test_a_search_for_idle_sessions_is_bounded_and_goes_on_where_the_last_one_ended(state) -> None:
    sessions = Sessions(state, per_client=1000)
    clients = [b"%032d" % number for number in range(100)]
    for client in clients:
        sessions.open((client, 1), OPENING, seq=1, time=0)
    sessions.take_changes()
    sessions.evict_idle(since=1)
    assert len(sessions.take_changes()) == SEARCH_STEP
    again = Sessions(state, per_client=1000)  # after a restart
    again.evict_idle(since=1)
    assert len(again.take_changes()) == 100 - SEARCH_STEP
    again.evict_idle(since=1)
    assert again.take_changes() == ()
    assert sorted(state.entries) == [b"c" + client for client in clients]


@pytest.mark.rule("R45")
def test_a_search_that_has_seen_all_begins_anew(state) -> None:
    sessions = Sessions(state, per_client=1000)
    clients = [b"%032d" % number for number in range(SEARCH_STEP + 1)]
    for client in clients:
        sessions.open((client, 1), OPENING, seq=1, time=0)
    for _ in range(2):
        sessions.evict_idle(since=0)
    sessions.evict_idle(since=1)
    assert sessions.take_changes()[0] == EvictedMark(clients[0], 1, 1)
