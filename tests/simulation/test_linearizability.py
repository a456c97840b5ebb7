"""The linearizability checker: on histories whose verdict is known, and against brute force."""

import io
from itertools import combinations, permutations
from random import Random

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from pbft.simulation.history import Action, MalformedHistory, Operation, dump, load
from pbft.simulation.linearizability import Judgement, Verdict, check

KEY = b"color"
FOREVER = 10**9


def put(client: int, call: int, reply: int | None, value: bytes, key: bytes = KEY) -> Operation:
    return Operation(client, call, reply, key, Action.PUT, argument=value)


def get(client: int, call: int, reply: int | None, found: bytes | None) -> Operation:
    return Operation(client, call, reply, KEY, Action.GET, result=found)


def delete(client: int, call: int, reply: int | None) -> Operation:
    return Operation(client, call, reply, KEY, Action.DELETE)


def swap(
    client: int, call: int, reply: int | None, expected: bytes | None, value: bytes
) -> Operation:
    return Operation(client, call, reply, KEY, Action.CAS, argument=value, expected=expected)


def failed_swap(
    client: int, call: int, reply: int, expected: bytes | None, value: bytes, found: bytes | None
) -> Operation:
    won = swap(client, call, reply, expected, value)
    return msgspec.structs.replace(won, result=found, succeeded=False)


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


def simulated(
    random: Random,
    operations: int,
    clients: int,
    *,
    values: int | None = None,
    unknown: float = 0.1,
    longest: int = 100,
) -> list[Operation]:
    """What `clients` would see of an atomic register, by drawn linearisation points.

    Values repeat if there are only `values` of them. A client whose outcome is unknown goes on.
    """
    points: list[tuple[int, int, int, int | None]] = []
    for client in range(clients):
        time = random.randrange(longest)
        for _ in range(operations // clients):
            end = time + random.randrange(1, longest)
            lost = random.random() < unknown
            point = random.randint(time, 3 * end if lost else end)
            points.append((point, client, time, None if lost else end))
            time = end + random.randrange(1, longest // 2)
    value: bytes | None = None
    history = []
    for number, (_, client, call, reply) in enumerate(sorted(points, key=lambda p: p[0])):
        takes_effect = reply is not None or random.random() < 0.5
        new = b"%d" % (number if values is None else random.randrange(values))
        operation, after = perform(random, client, call, reply, value, new)
        history.append(operation)
        value = after if takes_effect else value
    random.shuffle(history)
    return history


def perform(
    random: Random, client: int, call: int, reply: int | None, value: bytes | None, new: bytes
) -> tuple[Operation, bytes | None]:
    action = random.choice((Action.PUT, Action.GET, Action.GET, Action.DELETE, Action.CAS))
    if action is Action.PUT:
        return put(client, call, reply, new), new
    if action is Action.GET:
        return get(client, call, reply, value), value
    if action is Action.DELETE:
        return delete(client, call, reply), None
    if random.random() < 0.6:
        return swap(client, call, reply, value, new), new
    other = b"other" if value is None or random.random() < 0.5 else None
    if reply is None:
        return swap(client, call, reply, other, new), value
    return failed_swap(client, call, reply, other, new, value), value


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


def mutated(random: Random, history: list[Operation]) -> list[Operation] | None:
    """The history with another result of one operation, or None if it has none to change."""
    results = [op for op in history if op.action in (Action.GET, Action.CAS) and op.reply]
    if not results:
        return None
    victim = random.choice(results)
    value = random.choice([op.argument for op in history])
    if victim.action is Action.CAS:
        changed = msgspec.structs.replace(victim, succeeded=not victim.succeeded, result=value)
    else:
        changed = msgspec.structs.replace(victim, result=value)
    return [changed if op is victim else op for op in history]


def test_most_histories_with_one_changed_result_fail() -> None:
    verdicts = []
    for seed in range(300):
        random = Random(seed)
        history = mutated(random, simulated(random, 40, 3, unknown=0.0))
        verdicts.append(check(history or []).verdict)
    assert Verdict.UNDECIDED not in verdicts
    assert verdicts.count(Verdict.VIOLATION) > 200


# --- against brute force ---------------------------------------------------------------------


def brute_force(history: list[Operation]) -> bool:
    """Whether some order of all known and some unknown operations is legal: tries them all."""
    known = [op for op in history if op.reply is not None]
    unknown = [op for op in history if op.reply is None]
    return any(
        respects_time(order) and is_legal(order)
        for size in range(len(unknown) + 1)
        for chosen in combinations(unknown, size)
        for order in permutations([*known, *chosen])
    )


def respects_time(order: tuple[Operation, ...]) -> bool:
    ends = [FOREVER if op.reply is None else op.reply for op in order]
    return all(ends[j] >= order[i].call for j in range(len(order)) for i in range(j))


def is_legal(order: tuple[Operation, ...]) -> bool:
    value: bytes | None = None
    for op in order:
        if op.action is Action.GET:
            if op.reply is not None and op.result != value:
                return False
        elif op.action is Action.CAS:
            matches = op.expected == value
            if op.reply is not None and op.succeeded != matches:
                return False
            if op.reply is not None and not op.succeeded and op.result != value:
                return False
            value = op.argument if matches else value
        else:
            value = op.argument
    return True


VALUES = st.sampled_from((b"a", b"b", b"c"))
MAYBE = st.none() | VALUES


@st.composite
def arbitrary_operations(draw: st.DrawFn) -> Operation:
    action = draw(st.sampled_from(Action))
    call = draw(st.integers(0, 12))
    writes = action in (Action.PUT, Action.CAS)
    return Operation(
        client=0,
        call=call,
        reply=draw(st.none() | st.integers(call, call + 8)),
        key=KEY,
        action=action,
        argument=draw(VALUES) if writes else None,
        expected=draw(MAYBE) if action is Action.CAS else None,
        result=draw(MAYBE) if action in (Action.GET, Action.CAS) else None,
        succeeded=draw(st.booleans()) if action is Action.CAS else True,
    )


@settings(max_examples=400, deadline=None)
@given(history=st.lists(arbitrary_operations(), max_size=5))
def test_the_search_agrees_with_brute_force_on_arbitrary_histories(
    history: list[Operation],
) -> None:
    expected = Verdict.LINEARIZABLE if brute_force(history) else Verdict.VIOLATION
    assert check(history).verdict is expected


def test_the_search_agrees_with_brute_force_on_nearly_right_histories() -> None:
    seen = {Verdict.LINEARIZABLE: 0, Verdict.VIOLATION: 0}
    for seed in range(250):
        random = Random(seed)
        history = simulated(random, 6, 3, values=random.choice((None, 2)), unknown=0.2)
        history = mutated(random, history) or history
        expected = Verdict.LINEARIZABLE if brute_force(history) else Verdict.VIOLATION
        assert check(history).verdict is expected, seed
        seen[expected] += 1
    assert min(seen.values()) > 50


def test_the_search_agrees_with_brute_force_where_few_values_meet_many_unknown_outcomes() -> None:
    seen = {Verdict.LINEARIZABLE: 0, Verdict.VIOLATION: 0}
    for seed in range(1500):
        random = Random(seed)
        history = crowded(random, random.randint(3, 5))
        expected = Verdict.LINEARIZABLE if brute_force(history) else Verdict.VIOLATION
        assert check(history).verdict is expected, seed
        seen[expected] += 1
    assert min(seen.values()) > 300


def crowded(random: Random, size: int) -> list[Operation]:
    """Two values, mostly swaps, all within a short time: every rule of the search has its turn."""
    history = []
    for client in range(size):
        call = random.randint(0, 10)
        reply = None if random.random() < 0.3 else call + random.randint(0, 8)
        value, other = random.choice((b"a", b"b")), random.choice((None, b"a", b"b"))
        action = random.choice((Action.PUT, Action.GET, Action.DELETE, Action.CAS, Action.CAS))
        if action is Action.PUT:
            history.append(put(client, call, reply, value))
        elif action is Action.GET:
            history.append(get(client, call, reply, other))
        elif action is Action.DELETE:
            history.append(delete(client, call, reply))
        elif reply is None or random.random() < 0.7:
            history.append(swap(client, call, reply, other, value))
        else:
            found = random.choice((None, b"a", b"b"))
            history.append(failed_swap(client, call, reply, other, value, found))
    return history


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
