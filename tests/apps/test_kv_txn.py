"""Transactions of the key-value store."""

import pytest

from pbft.apps.kv_codec import (
    FROM_KEY,
    MAX_TXN_DEPTH,
    Compare,
    Delete,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    TxnResult,
)
from pbft.apps.state_machine import Refused

WHOLE = (FROM_KEY, FROM_KEY)
DUPLICATE = "^duplicate key given in txn request$"


def when(key: bytes, target: Target, relation: Relation, operand, range_end: bytes = b"") -> Txn:
    return Txn(compares=(Compare(key, target, relation, operand, range_end),))


def test_all_changes_of_a_transaction_are_one_revision(store) -> None:
    result = store.do(Txn(success=(Put(b"a", b"1"), Put(b"b", b"2"))))
    assert (result.revision, result.succeeded) == (2, True)
    assert {kv.mod_revision for kv in store.ask(Range(*WHOLE)).kvs} == {2}


def test_a_refused_step_undoes_the_whole(store) -> None:
    with pytest.raises(Refused, match="future"):
        store.do(Txn(success=(Put(b"a", b"1"), Range(b"a", revision=2))))
    assert store.ask(Range(*WHOLE)).revision == 1


def test_a_transaction_reads_its_own_writes_but_not_at_its_own_revision(store) -> None:
    result = store.do(Txn(success=(Put(b"a", b"1"), Range(b"a"), Range(b"a", revision=1))))
    assert [len(read.kvs) for read in result.results[1:]] == [1, 0]


def test_compares_of_nested_transactions_look_at_the_state_before_the_first_write(store) -> None:
    absent = Compare(b"a", Target.VERSION, Relation.EQUAL, 0)
    nested = Txn((absent,), (Put(b"b", b"then"),), (Put(b"b", b"else"),))
    result = store.do(Txn(success=(Put(b"a", b"1"), nested)))
    assert isinstance(result.results[1], TxnResult)
    assert store.ask(Range(b"b")).kvs[0].value == b"then"


@pytest.mark.parametrize(
    ("target", "operand"),
    [(Target.VERSION, 2), (Target.CREATE, 2), (Target.MOD, 3), (Target.VALUE, b"m")],
)
def test_every_relation_holds_exactly_where_it_should(store, target, operand) -> None:
    store.do(Put(b"a", b"l"))
    store.do(Put(b"a", b"m"))
    below = b"a" if target is Target.VALUE else operand - 1
    above = b"z" if target is Target.VALUE else operand + 1
    expected = {
        Relation.EQUAL: (False, True, False),
        Relation.GREATER: (True, False, False),
        Relation.LESS: (False, False, True),
        Relation.NOT_EQUAL: (True, False, True),
    }
    for relation, truth in expected.items():
        tried = [when(b"a", target, relation, value) for value in (below, operand, above)]
        assert tuple(store.ask(txn).succeeded for txn in tried) == truth


@pytest.mark.parametrize("relation", Relation)
def test_no_compare_of_the_value_of_an_absent_key_holds(store, relation) -> None:
    assert not store.ask(when(b"a", Target.VALUE, relation, b"")).succeeded


def test_a_compare_over_a_range_must_hold_for_every_key(store) -> None:
    store.do(Put(b"a", b"1"))
    store.do(Put(b"b", b"1"))
    equal = when(*WHOLE[:1], Target.VALUE, Relation.EQUAL, b"1", FROM_KEY)
    assert store.ask(equal).succeeded
    store.do(Put(b"b", b"2"))
    assert not store.ask(equal).succeeded


@pytest.mark.parametrize(("target", "operand"), [(Target.VALUE, 1), (Target.MOD, b"1")])
def test_an_operand_of_the_wrong_kind_is_refused(store, target, operand) -> None:
    with pytest.raises(Refused, match="operand does not fit"):
        store.do(when(b"a", target, Relation.EQUAL, operand))


@pytest.mark.parametrize(
    "steps",
    [
        (Put(b"a", b"1"), Put(b"a", b"2")),
        (Put(b"a", b"1"), Delete(b"a")),
        (Delete(b"a", b"c"), Put(b"b", b"")),
        (Put(b"z", b""), Delete(b"a", FROM_KEY)),
        (Put(b"a", b""), Txn(failure=(Put(b"a", b""),))),
        (Txn(success=(Delete(*WHOLE),)), Put(b"a", b"")),
    ],
)
def test_a_key_is_changed_once_in_a_transaction(store, steps) -> None:
    with pytest.raises(Refused, match=DUPLICATE):
        store.do(Txn(success=steps))
    with pytest.raises(Refused, match=DUPLICATE):
        store.do(Txn(failure=steps))


def test_branches_that_exclude_each_other_may_put_the_same_key(store) -> None:
    assert store.do(Txn((), (Put(b"a", b"1"),), (Put(b"a", b"2"), Delete(b"b")))).succeeded
    assert store.do(Txn(success=(Delete(b"a"), Delete(b"a")))).results[1].deleted == 0


def test_each_list_holds_at_most_128_operations(store) -> None:
    full = tuple(Put(b"%d" % number, b"") for number in range(128))
    assert store.do(Txn(success=full)).revision == 2
    compare = Compare(b"a", Target.VERSION, Relation.EQUAL, 0)
    for txn in (
        Txn(success=(*full, Put(b"x", b""))),
        Txn(failure=(*full, Put(b"x", b""))),
        Txn(compares=(compare,) * 129),
    ):
        with pytest.raises(Refused, match=r"^too many operations in txn request$"):
            store.do(txn)


def test_nesting_does_not_get_around_the_bound(store) -> None:
    reads = Txn(success=(Range(b"a"),) * 120)
    assert store.ask(Txn(success=(reads,) * 3)).succeeded
    with pytest.raises(Refused, match="too many operations"):
        store.ask(Txn(success=(reads,) * 4))


def test_transactions_nest_to_a_bounded_depth(store) -> None:
    txn = Txn(success=(Range(b"a"),))
    for _ in range(MAX_TXN_DEPTH - 1):
        txn = Txn(success=(txn,))
    assert store.ask(txn).succeeded
    with pytest.raises(Refused, match=r"^malformed key-value operation$"):
        store.ask(Txn(success=(txn,)))


def test_a_query_may_be_a_transaction_whose_taken_branch_only_reads(store) -> None:
    reads_or_writes = Txn((), (Range(b"a"),), (Put(b"a", b""),))
    assert store.ask(reads_or_writes).succeeded
    with pytest.raises(Refused, match="a query cannot write"):
        store.ask(Txn((), (Range(b"a"), Put(b"a", b""))))


def test_bad_keys_are_refused_also_in_the_branch_not_taken(store) -> None:
    with pytest.raises(Refused, match="key is not provided"):
        store.do(Txn(failure=(Range(b""),)))
    with pytest.raises(Refused, match="longer than 400"):
        store.do(when(b"k" * 401, Target.VERSION, Relation.EQUAL, 0))
