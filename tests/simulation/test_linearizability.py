"""The linearizability checker: on histories whose verdict is known, and against brute force."""

import io
from random import Random

import pytest
from histories import KEY, delete, failed_swap, get, mutated, put, simulated, swap
from hypothesis import given, strategies as st

from pbft.simulation.history import Action, MalformedHistory, Operation, dump, load
from pbft.simulation.linearizability import Judgement, Verdict, check


def verdict(*history: Operation) -> Verdict:
    return check(history).verdict


# --- known histories -------------------------------------------------------------------------


def test_an_empty_history_is_linearizable() -> None:
    assert verdict() is Verdict.LINEARIZABLE


def test_one_client_after_the_other_is_linearizable() -> None:
    assert (
        verdict(
            get(0, 0, 1, None),
            swap(0, 2, 3, None, b"a"),
            failed_swap(1, 4, 5, None, b"x", b"a"),
            swap(1, 6, 7, b"a", b"b"),
            get(0, 8, 9, b"b"),
            delete(1, 10, 11),
            get(0, 12, 13, None),
            put(0, 14, 15, b"a"),
            get(1, 16, 17, b"a"),
        )
        is Verdict.LINEARIZABLE
    )


def test_concurrent_reads_may_fall_on_both_sides_of_a_write() -> None:
    history = [put(0, 0, 10, b"a"), get(1, 1, 2, None), get(2, 3, 4, b"a"), get(1, 5, 6, b"a")]
    assert verdict(*history) is Verdict.LINEARIZABLE


def test_a_new_value_may_not_be_read_before_the_old_one() -> None:
    history = [put(0, 0, 10, b"a"), get(1, 1, 2, b"a"), get(2, 3, 4, None)]
    assert verdict(*history) is Verdict.VIOLATION


def test_a_stale_read_is_a_violation_and_is_named() -> None:
    history = [put(0, 0, 1, b"a"), put(0, 2, 3, b"b"), get(1, 4, 5, b"a")]
    judgement = check(history)
    assert judgement.verdict is Verdict.VIOLATION
    assert judgement.key == KEY
    assert "get, which returned b'a'" in str(judgement)


def test_a_lost_update_is_a_violation() -> None:
    assert verdict(put(0, 0, 1, b"a"), get(1, 2, 3, None)) is Verdict.VIOLATION
    assert verdict(put(0, 0, 1, b"a"), delete(0, 2, 3), get(1, 4, 5, b"a")) is Verdict.VIOLATION


def test_a_value_that_nobody_wrote_is_a_violation_and_is_named() -> None:
    judgement = check([put(0, 0, 1, b"a"), get(1, 0, 5, b"ghost")])
    assert judgement.verdict is Verdict.VIOLATION
    assert "get, which returned b'ghost'" in judgement.explanation


def test_two_swaps_from_one_value_cannot_both_succeed() -> None:
    history = [put(0, 0, 1, b"a"), swap(1, 2, 9, b"a", b"b"), swap(2, 2, 9, b"a", b"c")]
    assert verdict(*history) is Verdict.VIOLATION
    back = put(0, 2, 9, b"a")
    assert verdict(*history, back) is Verdict.LINEARIZABLE


def test_a_chain_of_swaps_is_put_in_its_only_order() -> None:
    chain = [swap(i, 0, 99, b"%d" % i if i else None, b"%d" % (i + 1)) for i in range(12)]
    Random(1).shuffle(chain)
    assert verdict(*chain) is Verdict.LINEARIZABLE
    assert verdict(*chain, get(20, 100, 101, b"11")) is Verdict.VIOLATION


def test_a_swap_that_failed_on_the_value_it_expected_is_a_violation() -> None:
    assert verdict(put(0, 0, 1, b"a"), failed_swap(1, 2, 3, b"a", b"b", b"a")) is Verdict.VIOLATION


def test_an_unknown_write_may_take_effect_late() -> None:
    history = [put(0, 0, None, b"late"), put(1, 1, 2, b"a"), get(1, 3, 4, b"a")]
    assert verdict(*history, get(1, 90, 91, b"late")) is Verdict.LINEARIZABLE
    assert verdict(*history, get(1, 90, 91, b"a")) is Verdict.LINEARIZABLE


def test_an_unknown_write_takes_effect_at_most_once() -> None:
    history = [put(0, 0, None, b"x"), get(1, 1, 2, b"x"), put(1, 3, 4, b"a"), get(1, 5, 6, b"x")]
    assert verdict(*history) is Verdict.VIOLATION


def test_an_unknown_write_takes_no_effect_before_its_call() -> None:
    assert verdict(get(1, 1, 2, b"x"), put(0, 3, None, b"x")) is Verdict.VIOLATION


def test_an_unknown_swap_needs_the_value_that_it_expected() -> None:
    unknown = swap(0, 0, None, b"a", b"b")
    assert verdict(unknown, put(1, 1, 2, b"a"), get(1, 3, 4, b"b")) is Verdict.LINEARIZABLE
    assert verdict(unknown, put(1, 1, 2, b"c"), get(1, 3, 4, b"b")) is Verdict.VIOLATION


def test_an_unknown_delete_explains_a_missing_value() -> None:
    history = [put(1, 1, 2, b"a"), get(1, 3, 4, None), put(1, 5, 6, b"b"), get(1, 7, 8, b"b")]
    assert verdict(delete(0, 0, None), *history) is Verdict.LINEARIZABLE
    assert verdict(*history) is Verdict.VIOLATION


def test_many_unknown_writes_that_nobody_saw_cost_nothing() -> None:
    unknown = [put(9, i, None, b"unknown %d" % i) for i in range(300)]
    known = [put(0, 2 * i, 2 * i + 1, b"%d" % i) for i in range(200)]
    assert verdict(*unknown, *known, get(1, 900, 901, b"199")) is Verdict.LINEARIZABLE
    assert check([*unknown, *known, get(1, 900, 901, b"7")], 1000).verdict is Verdict.VIOLATION


def test_keys_are_checked_apart_and_the_guilty_one_is_named() -> None:
    other = put(0, 0, 1, b"a", key=b"other")
    assert verdict(other, get(0, 2, 3, None)) is Verdict.LINEARIZABLE
    assert check([other, put(0, 0, 1, b"a"), get(0, 2, 3, None)]).key == KEY


def test_a_search_beyond_its_bound_is_undecided() -> None:
    history = [*(put(i, 0, 99, b"%d" % i) for i in range(6)), get(7, 100, 101, b"3")]
    judgement = check(history, max_steps=1)
    assert judgement.verdict is Verdict.UNDECIDED
    assert "1 steps" in str(judgement)
    assert check(history).verdict is Verdict.LINEARIZABLE


def test_a_violation_is_told_before_an_undecided_search() -> None:
    hard = [put(i, 0, 99, b"%d" % i, key=b"hard") for i in range(3)]
    hard += [Operation(9, 100, 101, b"hard", Action.GET, result=b"1")]
    assert check([*hard, get(0, 2, 3, b"ghost")], max_steps=1).verdict is Verdict.VIOLATION


# --- histories of an atomic register ---------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    operations=st.integers(1, 80),
    clients=st.integers(1, 8),
    values=st.sampled_from((None, 2, 5)),
)
def test_histories_of_an_atomic_register_pass(
    seed: int, operations: int, clients: int, values: int | None
) -> None:
    history = simulated(Random(seed), operations, clients, values=values)
    assert check(history) == Judgement(Verdict.LINEARIZABLE)


def test_most_histories_with_one_changed_result_fail() -> None:
    verdicts = []
    for seed in range(300):
        random = Random(seed)
        history = mutated(random, simulated(random, 40, 3, unknown=0.0))
        verdicts.append(check(history or []).verdict)
    assert Verdict.UNDECIDED not in verdicts
    assert verdicts.count(Verdict.VIOLATION) > 200


# --- size ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "values"), [(4, None), (30, None), (8, 20), (16, 20)])
def test_thousands_of_operations_on_one_key_take_few_steps(
    clients: int, values: int | None
) -> None:
    history = simulated(Random(7), 4800, clients, values=values, unknown=0.01)
    assert check(history, max_steps=60_000).verdict is Verdict.LINEARIZABLE


def test_values_of_their_own_need_about_one_step_for_each_write() -> None:
    history = simulated(Random(7), 4800, 30, unknown=0.01)
    assert check(history, max_steps=8 * len(history)).verdict is Verdict.LINEARIZABLE


def test_a_stale_read_at_the_end_of_thousands_of_operations_is_found() -> None:
    history = simulated(Random(8), 3000, 6, unknown=0.0)
    end = max(op.reply or 0 for op in history)
    first = next(op.argument for op in history if op.action is Action.PUT)
    history += [put(0, end + 1, end + 2, b"last"), get(1, end + 3, end + 4, first)]
    judgement = check(history)
    assert judgement.verdict is Verdict.VIOLATION
    assert f"client 1's get, which returned {first!r}" in judgement.explanation


def test_one_operation_may_span_all_others() -> None:
    history = [op for i in range(800) for op in (put(0, 4 * i, 4 * i + 1, b"%d" % i),)]
    history += [get(1, 4 * i + 2, 4 * i + 3, b"%d" % i) for i in range(799)]
    history += [put(2, 0, 4000, b"long"), get(1, 3999, 4001, b"long")]
    assert verdict(*history) is Verdict.LINEARIZABLE


# --- the file format -------------------------------------------------------------------------


def test_a_history_survives_its_file() -> None:
    history = simulated(Random(3), 60, 3, unknown=0.3)
    file = io.BytesIO()
    dump(history, file)
    file.seek(0)
    assert load(file) == history


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"client": 1}',
        b'{"client":1,"call":5,"reply":4,"key":"YQ==","action":"get"}',
        b'{"client":1,"call":5,"reply":6,"key":"YQ==","action":"put"}',
        b'{"client":1,"call":5,"reply":6,"key":"YQ==","action":"get","argument":"YQ=="}',
        b'{"client":1,"call":5,"reply":6,"key":"?","action":"get"}',
        b'{"client":1,"call":5,"reply":6,"key":"YQ==","action":"fly"}',
        b'{"client":1,"call":5,"reply":6,"key":"YQ==","action":"get","more":1}',
    ],
)
def test_a_line_that_is_not_an_operation_is_refused_by_its_number(line: bytes) -> None:
    file = io.BytesIO()
    dump([get(0, 1, 2, None)], file)
    file.write(line + b"\n")
    file.seek(0)
    with pytest.raises(MalformedHistory, match="line 2 is not an operation"):
        load(file)


def test_an_operation_that_nobody_can_have_done_is_refused() -> None:
    with pytest.raises(ValueError, match="before its call"):
        get(0, 5, 4, None)
    with pytest.raises(ValueError, match="argument"):
        Operation(0, 1, 2, KEY, Action.DELETE, argument=b"a")


def test_touching_intervals_are_concurrent() -> None:
    assert verdict(put(0, 0, 5, b"a"), get(1, 5, 6, None)) is Verdict.LINEARIZABLE
    assert verdict(put(0, 0, 5, b"a"), get(1, 6, 7, None)) is Verdict.VIOLATION


def test_a_value_may_come_again_in_the_very_microsecond_in_which_it_is_seen() -> None:
    history = [put(0, 0, 1, b"a"), put(0, 2, 3, b"b"), get(1, 4, 6, b"a")]
    assert verdict(*history, put(0, 6, 9, b"a")) is Verdict.LINEARIZABLE
    assert verdict(*history, put(0, 7, 9, b"a")) is Verdict.VIOLATION
