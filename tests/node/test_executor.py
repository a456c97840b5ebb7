"""Deterministic execution: sessions' rules, one test each, over the real state store."""

from typing import Any

import pytest
from bench import ALICE, BOB, STRANGER, WINDOW, Bench, Journal, bundle, envelope, opening, values

from pbft.apps.state_machine import Context
from pbft.codec import request_digest
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import (
    CONFLICT,
    EXECUTED,
    OK,
    OUT_OF_WINDOW,
    REFUSED,
    SESSION_EXPIRED,
    SESSION_REFUSED,
    OperationResult,
    ReplyLeaf,
    Request,
)
from pbft.storage.state_store import StateStore


@pytest.fixture
def bench() -> Bench:
    return Bench(Journal())


@pytest.fixture
def opened(bench: Bench) -> Bench:
    assert bench.run(opening()).status == EXECUTED
    return bench


# --- opening, expiry -------------------------------------------------------------------------


@pytest.mark.rule("R45")
def test_a_bundle_of_an_unknown_session_expires_and_does_not_execute(bench) -> None:
    leaf = bench.run(bundle(1, b"x"))
    assert (leaf.status, leaf.results, bench.journal) == (SESSION_EXPIRED, (), b"")


@pytest.mark.rule("R45")
def test_a_client_that_is_not_admitted_never_executes(bench) -> None:
    for request in (opening(STRANGER), bundle(1, b"x", client=STRANGER)):
        execution = bench.batch(request)
        assert execution.leaves[0].status == SESSION_EXPIRED
        assert execution.sessions == ()
    assert bench.journal == b""


@pytest.mark.rule("R11")
def test_the_same_opening_again_gets_the_same_leaf(bench) -> None:
    first = bench.batch(opening())
    again = bench.batch(opening())
    assert first.leaves == again.leaves
    assert first.sessions == (SessionView(ALICE, 1, 0, ()),)
    assert again.sessions == ()


@pytest.mark.rule("R45")
def test_two_processes_with_one_key_share_it_safely(bench) -> None:
    mine, theirs = bench.run(opening(), signature=1), bench.run(opening(), signature=2)
    assert (mine.status, theirs.status) == (EXECUTED, SESSION_REFUSED)
    number = int.from_bytes(theirs.results[0].value, "big")
    assert (theirs.results[0].code, len(theirs.results[0].value), number) == (REFUSED, 8, 2)
    assert bench.run(opening(session=number), signature=2).status == EXECUTED
    bench.run(bundle(1, b"mine"))
    bench.run(bundle(1, b"theirs", session=2))
    assert bench.journal == b"minetheirs"


def test_an_opening_that_carries_operations_is_refused(bench) -> None:
    leaf = bench.run(Request(ALICE, 1, 0, 0, False, (b"x",)))
    assert (leaf.status, bench.journal) == (SESSION_REFUSED, b"")
    assert bench.run(bundle(1, b"x")).status == SESSION_EXPIRED


@pytest.mark.rule("R45")
def test_an_evicted_session_never_executes_and_its_number_is_never_reused(opened) -> None:
    opened.run(bundle(1, b"x"))
    opened.run(opening(session=2))
    evicting = opened.batch(opening(session=3))
    assert evicting.sessions == (EvictedMark(ALICE, 1, 1), SessionView(ALICE, 3, 0, ()))
    for request in (bundle(1, b"x"), bundle(2, b"y")):
        assert opened.run(request).status == SESSION_EXPIRED
    again = opened.run(opening())
    assert again.status == SESSION_REFUSED
    assert int.from_bytes(again.results[0].value, "big") == 4
    assert opened.journal == b"x"


@pytest.mark.rule("R45")
def test_sessions_of_other_clients_are_not_evicted(opened) -> None:
    for number in (1, 2, 3):
        opened.run(opening(BOB, number))
    assert opened.run(bundle(1, b"x")).status == EXECUTED


# --- the window ------------------------------------------------------------------------------


@pytest.mark.rule("R16")
def test_bundles_execute_in_any_order_inside_the_window(opened) -> None:
    for number in (3, 1, 4, 2):
        assert opened.run(bundle(number, b"%d" % number)).status == EXECUTED
    assert opened.journal == b"3142"


@pytest.mark.rule("R16")
def test_the_window_ends_where_it_should_and_moves_with_acknowledgements(opened) -> None:
    assert opened.run(bundle(WINDOW + 1, b"x")).status == OUT_OF_WINDOW
    opened.run(bundle(1, b"a"))
    execution = opened.batch(bundle(WINDOW + 1, b"b", acknowledged=1))
    assert execution.leaves[0].status == EXECUTED
    assert execution.sessions == (SessionView(ALICE, 1, 1, (WINDOW + 1,)),)
    assert opened.run(bundle(1, b"a")).status == OUT_OF_WINDOW
    assert opened.journal == b"ab"


@pytest.mark.rule("R16")
def test_a_wild_acknowledgement_hurts_only_its_own_session(opened) -> None:
    opened.run(opening(session=2))
    top = 2**63 - 1
    assert opened.run(bundle(top, b"x", acknowledged=top)).status == EXECUTED
    assert opened.run(bundle(1, b"y")).status == OUT_OF_WINDOW
    assert opened.run(bundle(1, b"z", session=2)).status == EXECUTED


@pytest.mark.rule("R16")
def test_what_lies_out_of_the_window_may_still_acknowledge(opened) -> None:
    opened.run(bundle(1, b"a"))
    execution = opened.batch(bundle(9, b"x", acknowledged=1))
    assert execution.leaves[0].status == OUT_OF_WINDOW
    assert execution.sessions == (SessionView(ALICE, 1, 1, ()),)


@pytest.mark.rule("R16")
def test_bundles_of_several_sessions_interleave_in_one_batch(opened) -> None:
    batch = (
        opening(session=2),
        bundle(1, b"a"),
        bundle(1, b"b", session=2),
        bundle(2, b"c"),
        bundle(1, b"a"),
    )
    leaves = opened.batch(*batch).leaves
    assert [leaf.status for leaf in leaves] == [EXECUTED] * 5
    assert leaves[4] == leaves[1]
    assert opened.journal == b"abc"


# --- at most once ----------------------------------------------------------------------------


@pytest.mark.rule("R11")
def test_an_executed_bundle_again_gives_the_same_leaf_and_executes_nothing(opened) -> None:
    first = opened.run(bundle(1, b"x", b"y"))
    assert values(first) == [b"1", b"2"]
    again = opened.batch(bundle(1, b"x", b"y"), bundle(1, b"x", b"y"))
    assert again.leaves == (first, first)
    assert (again.sessions, opened.journal) == ((), b"xy")


@pytest.mark.rule("R15")
def test_of_two_bundles_with_one_number_only_the_first_executes(opened) -> None:
    opened.run(bundle(1, b"x"))
    other = bundle(1, b"y")
    leaf = opened.run(other)
    assert (leaf.status, leaf.results) == (CONFLICT, ())
    assert leaf.request == request_digest(envelope(other))
    assert opened.run(bundle(1, b"x"), signature=7).status == CONFLICT
    assert opened.journal == b"x"


@pytest.mark.rule("R17")
def test_sessions_survive_a_flush_and_a_restart(opened) -> None:
    first = opened.run(bundle(2, b"x"))
    opened.run(opening(BOB))
    facts = opened.executor.session_facts()
    opened.store.flush()
    opened.store = StateStore(opened.database)
    opened.executor = opened.fresh_executor()
    assert opened.executor.session_facts() == facts
    assert facts == (SessionView(ALICE, 1, 0, (2,)), SessionView(BOB, 1, 0, ()))
    assert opened.run(bundle(2, b"x")) == first


# --- re-sending ------------------------------------------------------------------------------


def cached(bench: Bench, request: Request, signature: int = 0) -> ReplyLeaf | None:
    return bench.executor.cached(request, request_digest(envelope(request, signature)))


@pytest.mark.rule("R14")
def test_what_was_executed_can_be_told_again(opened) -> None:
    leaf = opened.run(bundle(1, b"x"))
    assert cached(opened, bundle(1, b"x")) == leaf
    assert cached(opened, opening()) == opened.run(opening())
    conflict = cached(opened, bundle(1, b"y"))
    assert conflict is not None
    assert conflict.status == CONFLICT
    assert cached(opened, bundle(2, b"x")) is None


@pytest.mark.rule("R14")
def test_only_what_holds_for_ever_is_told_without_ordering(opened) -> None:
    assert cached(opened, bundle(1, b"x", session=9)) is None
    assert cached(opened, bundle(WINDOW + 1, b"x")) is None
    for number in (2, 3):
        opened.run(opening(session=number))
    told = {
        SESSION_EXPIRED: cached(opened, bundle(1, b"x")),
        SESSION_REFUSED: cached(opened, opening()),
    }
    assert all(leaf is not None and leaf.status == status for status, leaf in told.items())
    opened.run(bundle(2, b"x", session=3, acknowledged=1))
    stale = cached(opened, bundle(1, b"x", session=3))
    assert stale is not None
    assert stale.status == OUT_OF_WINDOW


def test_nothing_is_told_while_a_state_is_being_fetched(opened) -> None:
    opened.run(bundle(1, b"x"))
    opened.store.begin_transfer(opened.store.summary())
    assert cached(opened, bundle(1, b"x")) is None


# --- time ------------------------------------------------------------------------------------


@pytest.mark.rule("R12")
def test_time_never_goes_back(opened) -> None:
    assert opened.batch(time=500).time == 500
    assert opened.batch(bundle(1, b"x"), time=300).time == 500
    assert opened.machine.contexts[-1] == Context(500, ALICE, 1, 3)
    assert opened.store.time == 500


@pytest.mark.rule("R12")
def test_what_is_due_is_done_before_the_operations_of_the_batch(opened) -> None:
    opened.machine.deadline = 700
    opened.batch(time=699)
    assert opened.executor.next_deadline() == 700
    opened.batch(bundle(1, b"x"), time=700)
    assert opened.journal == b"Tx"
    assert opened.store.application.get(b"ticked") == b"700"
    assert opened.executor.next_deadline() is None


# --- reads -----------------------------------------------------------------------------------


def test_an_ordered_read_is_a_query_and_happens_once(opened) -> None:
    opened.run(bundle(1, b"x"))
    leaf = opened.run(bundle(2, b"q", read_only=True))
    opened.run(bundle(3, b"y"))
    assert values(leaf) == [b"q 1"]
    assert opened.run(bundle(2, b"q", read_only=True)) == leaf


@pytest.mark.rule("R20")
def test_a_fast_read_answers_from_the_state_as_it_is(opened) -> None:
    opened.run(bundle(1, b"x"))
    assert opened.executor.query((b"q", b"r")) == (
        OperationResult(OK, b"q 1"),
        OperationResult(OK, b"r 1"),
    )


# --- two replicas ----------------------------------------------------------------------------


@pytest.mark.rule("R17")
@pytest.mark.rule("R11")
def test_two_replicas_agree_whenever_they_flush(bench) -> None:
    other = Bench(Journal())
    script: list[tuple[Any, ...]] = [
        (opening(), opening(BOB), bundle(1, b"a")),
        (bundle(1, b"a"), bundle(1, b"b"), bundle(3, b"c", acknowledged=1)),
        (opening(session=2), opening(session=3), bundle(2, b"d"), bundle(1, b"e", session=3)),
    ]
    for requests in script:
        assert bench.batch(*requests) == other.batch(*requests)
        other.store.flush()
    assert bench.store.flush() == other.store.flush()
