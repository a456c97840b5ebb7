"""Which outcomes become results, and which stop the replica (R47)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pbft.apps.state_machine import Context, Refused, StateMachine
from pbft.config import Parameters
from pbft.messages import CROWDED, FAILED, OK, REFUSED, OperationResult, Request
from pbft.node.operations import Operations
from pbft.storage.database import CorruptRecord, StorageFailure
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

LIMITS = Parameters(
    max_operation_bytes=50, max_result_bytes=100, max_bundle_operations=3, max_bundle_reads=40
)
CONTEXT = Context(time=10, client=b"c" * 32, session=1, seq=1)
ERROR = OperationResult(FAILED, b"application error")


class Scripted(StateMachine):
    """Writes the operation, then does what the script says for it, in `apply` and in `query`."""

    def __init__(self, **script: Callable[[Any], Any]) -> None:
        self.script = {name.encode(): act for name, act in script.items()}
        self.deadline: Callable[[], Any] = lambda: None

    def apply(self, state, operation, context) -> bytes:
        state.put(operation, b"written")
        return self.query(state, operation)

    def query(self, state, operation) -> Any:
        act = self.script.get(operation)
        return act(state) if act else operation

    def next_deadline(self, state) -> int | None:
        return self.deadline()

    def tick(self, state, context) -> None:
        state.put(b"tick", b"written")
        self.query(state, b"tick")


def throw(error: BaseException) -> Callable[[Any], Any]:
    def act(state: Any) -> Any:
        raise error

    return act


@pytest.fixture
def store() -> StateStore:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    store.begin_batch(1, 10)
    return store


def run(store: StateStore, machine: StateMachine, *operations: bytes, read_only: bool = False):
    request = Request(b"c" * 32, 1, 1, 0, read_only, operations)
    return Operations(store, machine, LIMITS).execute(
        request, CONTEXT, LIMITS.max_kept_result_bytes
    )


def written(store: StateStore) -> list[bytes]:
    return [key for key, _ in store.application.range()]


@pytest.mark.rule("R47")
def test_a_refused_operation_leaves_nothing_but_its_text(store) -> None:
    machine = Scripted(no=throw(Refused("no füel")))
    assert run(store, machine, b"a", b"no", b"b") == (
        OperationResult(OK, b"a"),
        OperationResult(REFUSED, "no füel".encode()),
        OperationResult(OK, b"b"),
    )
    assert written(store) == [b"a", b"b"]


@pytest.mark.rule("R47")
@pytest.mark.parametrize("error", [ValueError("local detail"), AssertionError(), KeyError(b"k")])
def test_any_other_exception_is_one_fixed_result(store, error) -> None:
    assert run(store, Scripted(bad=throw(error)), b"bad", b"a") == (
        ERROR,
        OperationResult(OK, b"a"),
    )
    assert written(store) == [b"a"]


@pytest.mark.rule("R47")
@pytest.mark.parametrize("value", [None, "text", 7, bytearray(b"x")])
def test_a_result_that_is_not_bytes_is_an_application_error(store, value) -> None:
    assert run(store, Scripted(odd=lambda _: value), b"odd") == (ERROR,)
    assert written(store) == []


@pytest.mark.rule("R47")
@pytest.mark.parametrize(
    "trouble",
    [
        MemoryError(),
        RecursionError(),
        OSError(28, "no space left"),
        StorageFailure("read"),
        CorruptRecord("checksum"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_trouble_of_this_machine_stops_the_replica(store, trouble) -> None:
    machine = Scripted(bad=throw(trouble), tick=throw(trouble))
    for read_only in (False, True):
        with pytest.raises(type(trouble)):
            run(store, machine, b"bad", read_only=read_only)
    machine.deadline = lambda: 1
    with pytest.raises(type(trouble)):
        Operations(store, machine, LIMITS).tick(CONTEXT)
    machine.deadline = lambda: throw(trouble)(None)
    with pytest.raises(type(trouble)):
        Operations(store, machine, LIMITS).next_deadline()


@pytest.mark.rule("R47")
def test_a_real_stack_overflow_of_the_application_stops_the_replica(store) -> None:
    def dig(state: Any) -> Any:
        return dig(state)

    with pytest.raises(RecursionError):
        run(store, Scripted(deep=dig), b"deep")


def test_a_refusal_is_cut_at_a_whole_character(store) -> None:
    machine = Scripted(no=throw(Refused("é" * 600)), lone=throw(Refused("\ud800")))
    long, lone = run(store, machine, b"no", b"lone")
    assert long.value == ("é" * 512).encode()
    assert lone.value == b"?"


@pytest.mark.parametrize("refusal", [Refused(), Refused(object()), Refused(b"bytes")])
def test_a_refusal_without_a_text_has_a_fixed_one(store, refusal) -> None:
    assert run(store, Scripted(no=throw(refusal)), b"no")[0].value == b"refused"


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.rule("R47")
def test_a_result_that_is_too_large_is_refused_and_undone(store) -> None:
    machine = Scripted(big=lambda _: b"x" * 101, full=lambda _: b"x" * 100)
    assert run(store, machine, b"big") == (OperationResult(REFUSED, b"result too large"),)
    assert written(store) == []
    assert run(store, machine, b"full")[0].code == OK


@pytest.mark.rule("R47")
def test_the_results_of_one_bundle_share_the_room(store) -> None:
    machine = Scripted(half=lambda _: b"x" * 50, more=lambda _: b"x" * 51)
    results = run(store, machine, b"half", b"more", b"half")
    assert [result.code for result in results] == [OK, CROWDED, OK]
    assert written(store) == [b"half"]


def test_operations_beyond_the_limits_are_refused(store) -> None:
    assert run(store, Scripted(), b"x" * 51, b"y" * 50) == (
        OperationResult(REFUSED, b"operation too large"),
        OperationResult(OK, b"y" * 50),
    )
    results = run(store, Scripted(), b"a", b"b", b"c", b"d")
    assert {result.value for result in results} == {b"too many operations in one bundle"}
    assert len(results) == 4
    assert written(store) == [b"y" * 50]


# --- what one bundle may read ----------------------------------------------------------------


def count(state: Any) -> bytes:
    return b"%d" % sum(1 for _ in state.range())


@pytest.mark.rule("R43")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_bundle_that_reads_too_much_is_refused(store, read_only) -> None:
    for number in range(LIMITS.max_bundle_reads):
        store.application.put(b"%d" % number, b"")
    once = run(store, Scripted(count=count), b"count", read_only=True)
    assert once[0] == OperationResult(OK, b"%d" % LIMITS.max_bundle_reads)
    twice = run(store, Scripted(a=count, b=lambda s: s.get(b"1")), b"a", b"b", read_only=read_only)
    assert twice[-1].code == CROWDED
    store.application.put(b"one more", b"")
    alone = run(store, Scripted(a=count), b"a", read_only=read_only)[0]
    assert alone.code == REFUSED
    assert alone.value.startswith(b"too much is read")


@pytest.mark.rule("R43")
def test_large_values_count_for_more(store) -> None:
    store.application.put(b"big", bytes(1024 * LIMITS.max_bundle_reads))
    big = Scripted(get=lambda s: s.get(b"big") and b"", range=count)
    assert [r.code for r in run(store, big, b"get", read_only=True)] == [REFUSED]
    assert [r.code for r in run(store, big, b"range", read_only=True)] == [REFUSED]


def test_a_tick_may_read_as_much_as_it_takes(store) -> None:
    machine = Scripted(tick=count)
    machine.deadline = lambda: 10
    for number in range(LIMITS.max_bundle_reads + 1):
        store.application.put(b"%d" % number, b"")
    Operations(store, machine, LIMITS).tick(CONTEXT)
    assert store.application.get(b"tick") == b"written"


# --- this machine's own trouble --------------------------------------------------------------


class Broken:
    """A map on a broken disk."""

    def get(self, key: bytes) -> bytes:
        raise CorruptRecord("a record does not match its checksum")

    def range(self, *_: Any, **__: Any) -> Any:
        raise CorruptRecord("a record does not match its checksum")
        yield


@pytest.mark.rule("R47")
@pytest.mark.parametrize("read", [lambda s: s.get(b"k"), lambda s: next(s.range())])
def test_an_application_cannot_make_a_result_of_a_broken_disk(store, read) -> None:
    def swallow(state: Any) -> bytes:
        try:
            read(state)
        except Exception:
            return b"as if nothing had happened"
        return b""

    store.application.get, store.application.range = Broken().get, Broken().range
    with pytest.raises(CorruptRecord):
        run(store, Scripted(op=swallow), b"op", read_only=True)


@pytest.mark.rule("R47")
@pytest.mark.parametrize("error", [SystemExit(), GeneratorExit(), asyncio.CancelledError()])
def test_an_application_that_wants_to_end_the_process_gets_an_error(store, error) -> None:
    assert run(store, Scripted(op=throw(error)), b"op") == (ERROR,)
    assert written(store) == []


# --- queries and ticks -----------------------------------------------------------------------


def test_a_query_gets_a_view_that_cannot_be_written(store) -> None:
    machine = Scripted(put=lambda s: s.put(b"k", b"v"), delete=lambda s: s.delete(b"k"))
    assert run(store, machine, b"put", b"delete", read_only=True) == (ERROR, ERROR)
    assert written(store) == []


def test_a_query_reads_single_keys_and_ranges_both_ways(store) -> None:
    machine = Scripted(
        get=lambda s: s.get(b"b"),
        range=lambda s: b"".join(key for key, _ in s.range(b"a", b"c", reverse=True)),
    )
    run(store, machine, b"a", b"b", b"c")
    answers = Operations(store, machine, LIMITS).query((b"get", b"range"))
    assert [answer.value for answer in answers] == [b"written", b"ba"]


@pytest.mark.rule("R20")
def test_a_fast_read_maps_errors_as_an_ordered_one_does(store) -> None:
    machine = Scripted(no=throw(Refused("no")), bad=throw(ValueError()), big=lambda _: b"x" * 101)
    operations = (b"no", b"bad", b"big")
    answers = Operations(store, machine, LIMITS).query(operations)
    assert answers == run(store, machine, *operations, read_only=True)
    assert [answer.code for answer in answers] == [REFUSED, FAILED, REFUSED]


@pytest.mark.rule("R47")
@pytest.mark.parametrize("error", [ValueError(), Refused("no")])
def test_a_tick_that_fails_leaves_nothing(store, error) -> None:
    machine = Scripted(tick=throw(error))
    machine.deadline = lambda: 10
    Operations(store, machine, LIMITS).tick(CONTEXT)
    assert written(store) == []


@pytest.mark.parametrize("deadline", [lambda: 11, lambda: "soon", lambda: throw(ValueError())(0)])
def test_no_tick_before_its_time_nor_where_the_application_cannot_say(store, deadline) -> None:
    machine = Scripted()
    machine.deadline = deadline
    Operations(store, machine, LIMITS).tick(CONTEXT)
    assert written(store) == []
    machine.deadline = lambda: 10
    Operations(store, machine, LIMITS).tick(CONTEXT)
    assert written(store) == [b"tick"]
