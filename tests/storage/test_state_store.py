from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from pbft.apps.state_machine import Refused
from pbft.codec import checkpoint_digest
from pbft.storage.database import CorruptRecord, StorageFailure, writing
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_map import Map
from pbft.storage.state_store import GENESIS, StateStore
from pbft.storage.state_trees import STATE_TABLES


def execute(store: StateStore, **records: str) -> None:
    store.begin_batch(store.seq + 1, store.time + 10)
    for key, value in records.items():
        store.application.put(key.encode(), value.encode())


def content(state: Map) -> dict[bytes, bytes]:
    return dict(state.range())


def test_genesis_is_empty_at_sequence_number_zero(store: StateStore) -> None:
    assert (store.seq, store.time) == (0, 0)
    assert store.flush() == store.summary() == GENESIS
    assert content(store.application) == content(store.sessions) == {}


def test_batches_follow_one_another(store: StateStore) -> None:
    store.begin_batch(1, 100)
    for seq, time in ((1, 100), (3, 100), (2, 99)):
        with pytest.raises(ValueError, match="does not follow batch 1 at 100"):
            store.begin_batch(seq, time)
    store.begin_batch(2, 100)
    assert (store.seq, store.time) == (2, 100)


@pytest.mark.rule("R40")
def test_a_crash_goes_back_to_the_last_flush(store: StateStore, disk: MemoryDatabase) -> None:
    execute(store, a="1", b="1")
    store.sessions.put(b"s", b"1")
    flushed = store.flush()
    execute(store, a="2", c="2")
    store.application.delete(b"b")
    store.sessions.put(b"s", b"2")
    disk.crash()
    again = StateStore(disk)
    assert (again.seq, again.time) == (1, 10)
    assert again.summary() == flushed
    assert content(again.application) == {b"a": b"1", b"b": b"1"}
    assert content(again.sessions) == {b"s": b"1"}


@pytest.mark.rule("R40")
def test_executing_again_after_a_crash_gives_the_same_state() -> None:
    def run(crash_after: int, flush_at: tuple[int, ...]) -> bytes:
        disk = MemoryDatabase(STATE_TABLES)
        store = StateStore(disk)
        for goal in (crash_after, 6):
            while store.seq < goal:
                execute(store, **{f"k{store.seq % 3}": str(store.seq)})
                if store.seq in flush_at:
                    store.flush()
            disk.crash()
            store = StateStore(disk)
        return checkpoint_digest(store.summary())

    assert len({run(crash, (2, 4, 6)) for crash in range(1, 7)} | {run(3, (6,))}) == 1


def test_the_summary_changes_with_all_that_it_covers(store: StateStore) -> None:
    summaries = []
    for state, value in ((None, b""), (store.application, b"v"), (store.sessions, b"v")):
        execute(store)
        if state is not None:
            state.put(b"k", value)
        summaries.append(store.flush())
    first, second, third = summaries
    assert [summary.seq for summary in summaries] == [1, 2, 3]
    assert [summary.time for summary in summaries] == [10, 20, 30]
    assert first.application_root != second.application_root == third.application_root
    assert first.sessions_root == second.sessions_root != third.sessions_root
    assert second.application_root != third.sessions_root


def test_a_failed_flush_leaves_the_old_state(store: StateStore, disk: MemoryDatabase) -> None:
    execute(store, a="1")
    store.flush()
    execute(store, a="2")
    blocking = disk.begin()
    with pytest.raises(RuntimeError):
        store.flush()
    blocking.abort()
    with pytest.raises(StorageFailure):
        store.application.get(b"never read")
    assert content(StateStore(disk).application) == {b"a": b"1"}


def test_a_savepoint_undoes_one_operation(store: StateStore) -> None:
    execute(store, flushed="1", gone="1")
    store.flush()
    execute(store, before="1")
    store.application.delete(b"gone")
    with store.savepoint() as savepoint:
        store.application.put(b"flushed", b"2")
        store.application.put(b"before", b"2")
        store.application.put(b"before", b"3")
        store.application.put(b"gone", b"2")
        store.application.put(b"new", b"2")
        store.application.delete(b"before")
        store.sessions.put(b"s", b"2")
        savepoint.rollback()
        assert content(store.application) == {b"flushed": b"1", b"before": b"1"}
        assert content(store.sessions) == {}
        store.application.put(b"kept", b"1")
    with store.savepoint():
        store.application.put(b"flushed", b"2")
    assert content(store.application) == {b"flushed": b"2", b"before": b"1", b"kept": b"1"}


@pytest.mark.rule("R47")
def test_an_exception_that_leaves_a_savepoint_undoes_it(store: StateStore) -> None:
    execute(store, a="1")

    def fail() -> None:
        with store.savepoint():
            store.application.put(b"a", b"2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(store.application) == {b"a": b"1"}
    with store.savepoint():
        pass


def test_savepoints_do_not_nest_and_a_flush_waits_for_their_end(store: StateStore) -> None:
    execute(store)
    with store.savepoint():
        with pytest.raises(RuntimeError, match="do not nest"):
            store.savepoint()
        with pytest.raises(RuntimeError, match="being applied"):
            store.flush()
    assert store.flush().seq == 1


@pytest.mark.rule("R47")
@pytest.mark.parametrize("key", [b"", b"k" * 481])
def test_a_key_of_the_wrong_length_is_refused_at_once(store: StateStore, key: bytes) -> None:
    execute(store)
    with pytest.raises(Refused, match="1 to 480 bytes"):
        store.application.put(key, b"v")
    store.application.delete(key)
    assert store.application.get(key) is None
    store.application.put(b"k" * 480, b"")
    store.flush()
    assert content(store.application) == {b"k" * 480: b""}


@pytest.mark.rule("R47")
def test_what_is_not_bytes_is_refused_at_once(store: StateStore) -> None:
    execute(store)
    for call in (
        lambda: store.application.put("k", b"v"),
        lambda: store.application.put(b"k", "v"),
        lambda: store.application.put(b"k", bytearray(b"v")),
        lambda: store.application.get("k"),
        lambda: store.application.delete(None),
        lambda: store.application.range("a"),
        lambda: store.application.range(b"a", 7),
    ):
        with pytest.raises(TypeError, match="keys and values are bytes"):
            call()
    assert content(store.application) == {}


def test_writing_needs_a_batch(store: StateStore) -> None:
    with pytest.raises(RuntimeError, match="no batch is open"):
        store.application.put(b"k", b"v")
    execute(store)
    store.flush()
    with pytest.raises(RuntimeError, match="no batch is open"):
        store.application.delete(b"k")


def test_a_range_does_not_outlive_its_batch(store: StateStore) -> None:
    execute(store, a="1", b="1")
    begun, fresh = store.application.range(), store.application.range()
    assert next(begun) == (b"a", b"1")
    execute(store)
    for stale in (begun, fresh):
        with pytest.raises(RuntimeError, match="outlive"):
            next(stale)
    begun = store.application.range()
    next(begun)
    store.flush()
    with pytest.raises(RuntimeError, match="outlive"):
        next(begun)


def test_a_range_goes_on_after_a_rollback_of_what_lies_ahead(store: StateStore) -> None:
    execute(store, a="1", c="1")
    with store.savepoint() as savepoint:
        store.application.put(b"b", b"2")
        walk = store.application.range()
        assert next(walk) == (b"a", b"1")
        savepoint.rollback()
    assert list(walk) == [(b"c", b"1")]


def test_a_damaged_summary_is_corruption(disk: MemoryDatabase) -> None:
    with writing(disk) as transaction:
        transaction.put("meta", b"state", b"\x00")
    with pytest.raises(CorruptRecord, match="no state summary"):
        StateStore(disk)


keys = st.binary(min_size=1, max_size=2)
steps = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "flush", "undo"]), keys, st.binary(max_size=2)),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.binary(max_size=2), st.none() | st.binary(max_size=2), st.booleans())
def test_the_map_is_a_sorted_map_wherever_its_entries_are(
    history: list[tuple[str, bytes, bytes]], start: bytes, end: bytes | None, reverse: bool
) -> None:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    model: dict[bytes, bytes] = {}
    execute(store)
    for action, key, value in history:
        if action == "put":
            store.application.put(key, value)
            model[key] = value
        elif action == "delete":
            store.application.delete(key)
            model.pop(key, None)
        elif action == "flush":
            store.flush()
            execute(store)
        else:
            with store.savepoint() as savepoint:
                store.application.put(key, value)
                store.application.delete(value)
                savepoint.rollback()
    expected = [
        item
        for item in sorted(model.items(), reverse=reverse)
        if item[0] >= start and (end is None or item[0] < end)
    ]
    assert list(store.application.range(start, end, reverse=reverse)) == expected
    assert all(store.application.get(key) == model.get(key) for _, key, _ in history)


def walk_and_change(
    state: Map, reverse: bool, changes: list[tuple[bytes, bytes | None]]
) -> Iterator[tuple[bytes, bytes]]:
    """Change the map after each step of a range over it."""
    pending = list(changes)
    for entry in state.range(reverse=reverse):
        yield entry
        for key, value in pending[:2]:
            if value is None:
                state.delete(key)
            else:
                state.put(key, value)
        del pending[:2]


letters = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(letters, unique=True),
    st.lists(st.tuples(letters, st.none() | st.just(b"new")), max_size=12),
    st.booleans(),
)
@pytest.mark.rule("R47")
def test_a_range_that_is_written_into_is_alike_whatever_was_flushed(
    present: list[bytes], changes: list[tuple[bytes, bytes | None]], reverse: bool
) -> None:
    seen = []
    for flush_after in range(len(present) + 1):
        store = StateStore(MemoryDatabase(STATE_TABLES))
        execute(store)
        for count, key in enumerate(present):
            if count == flush_after:
                store.flush()
                execute(store)
            store.application.put(key, b"old")
        seen.append(list(walk_and_change(store.application, reverse, changes)))
    assert all(entries == seen[0] for entries in seen)
