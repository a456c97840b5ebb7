"""The linearizability checker against brute force, on small histories."""

from itertools import combinations, permutations
from random import Random

from histories import FOREVER, KEY, delete, failed_swap, get, mutated, put, simulated, swap
from hypothesis import given, settings, strategies as st

from pbft.simulation.history import Action, Operation
from pbft.simulation.linearizability import Verdict, check

VALUES = st.sampled_from((b"a", b"b", b"c"))
MAYBE = st.none() | VALUES


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
