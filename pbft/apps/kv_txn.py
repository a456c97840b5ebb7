"""Transactions: what is refused beforehand, which branch is taken, and carrying it out."""

import operator
from collections.abc import Callable, Iterable

from msgspec import Struct

from pbft.apps.kv_codec import (
    FROM_KEY,
    MAX_TXN_OPERATIONS,
    MAX_TXN_TOTAL,
    Compare,
    Delete,
    KeyValue,
    Put,
    Range,
    Relation,
    Step,
    StepResult,
    Target,
    Txn,
    TxnResult,
)
from pbft.apps.kv_view import View, check_range
from pbft.apps.state_machine import Refused

_RELATIONS: dict[Relation, Callable[[int | bytes, int | bytes], bool]] = {
    Relation.EQUAL: operator.eq,
    Relation.GREATER: operator.gt,
    Relation.LESS: operator.lt,
    Relation.NOT_EQUAL: operator.ne,
}


# --- what is refused -------------------------------------------------------------------------


class Footprint:
    """The keys that some steps put and the ranges that they delete."""

    def __init__(self, puts: Iterable[bytes] = (), deletes: Iterable[Delete] = ()) -> None:
        self.puts = dict.fromkeys(puts)
        self.deletes = list(deletes)

    def join(self, other: "Footprint") -> None:
        """Add steps that one transaction may carry out beside these. Raises Refused."""
        if self._meets(other) or _deleted(self, other) or _deleted(other, self):
            raise Refused("duplicate key given in txn request")
        self.widen(other)

    def widen(self, other: "Footprint") -> None:
        """Add steps that are carried out instead of these."""
        self.puts.update(other.puts)
        self.deletes.extend(other.deletes)

    def _meets(self, other: "Footprint") -> bool:
        return any(key in self.puts for key in other.puts)


def _deleted(puts: Footprint, deletes: Footprint) -> bool:
    return any(_covers(each, key) for each in deletes.deletes for key in puts.puts)


def _covers(operation: Delete, key: bytes) -> bool:
    if not operation.range_end:
        return key == operation.key
    return operation.key <= key and (operation.range_end == FROM_KEY or key < operation.range_end)


def check(txn: Txn) -> None:
    """Refuse a transaction that is too large or contradicts itself, before anything is done."""
    if _size(txn) > MAX_TXN_TOTAL:
        raise Refused("too many operations in txn request")
    _footprint(txn)


def _size(txn: Txn) -> int:
    lists = (txn.compares, txn.success, txn.failure)
    if any(len(each) > MAX_TXN_OPERATIONS for each in lists):
        raise Refused("too many operations in txn request")
    nested = (step for step in (*txn.success, *txn.failure) if isinstance(step, Txn))
    return sum(map(len, lists)) + sum(map(_size, nested))


def _footprint(step: Step) -> Footprint:
    if isinstance(step, Txn):
        return _footprint_of_txn(step)
    if isinstance(step, Put):
        check_range(step.key, b"")
        return Footprint(puts=(step.key,))
    check_range(step.key, step.range_end)
    return Footprint(deletes=(step,)) if isinstance(step, Delete) else Footprint()


def _footprint_of_txn(txn: Txn) -> Footprint:
    for compare in txn.compares:
        _check_compare(compare)
    whole = _beside(txn.success)
    whole.widen(_beside(txn.failure))
    return whole


def _beside(steps: tuple[Step, ...]) -> Footprint:
    whole = Footprint()
    for step in steps:
        whole.join(_footprint(step))
    return whole


def _check_compare(compare: Compare) -> None:
    check_range(compare.key, compare.range_end)
    if (compare.target is Target.VALUE) != isinstance(compare.operand, bytes):
        raise Refused("a compare's operand does not fit its target")


# --- which branch ----------------------------------------------------------------------------


class Branch(Struct, frozen=True):
    """The steps to carry out, those of nested transactions chosen too."""

    succeeded: bool
    steps: tuple["Put | Range | Delete | Branch", ...]


def choose(view: View, txn: Txn) -> Branch:
    """Decide every compare on the state as it is before the first write."""
    succeeded = all(_holds(view, compare) for compare in txn.compares)
    steps = txn.success if succeeded else txn.failure
    return Branch(
        succeeded,
        tuple(choose(view, step) if isinstance(step, Txn) else step for step in steps),
    )


def _holds(view: View, compare: Compare) -> bool:
    found = None
    for found in view.live(compare.key, compare.range_end):
        if not _matches(compare, view.peek(found)):
            return False
    return found is not None or _matches(compare, None)


def _matches(compare: Compare, found: KeyValue | None) -> bool:
    if found is None and compare.target is Target.VALUE:
        return False
    actual = 0 if found is None else _attribute(compare.target, found)
    return _RELATIONS[compare.relation](actual, compare.operand)


def _attribute(target: Target, found: KeyValue) -> int | bytes:
    if target is Target.VALUE:
        return found.value
    if target is Target.VERSION:
        return found.version
    return found.create_revision if target is Target.CREATE else found.mod_revision


# --- carrying it out -------------------------------------------------------------------------


def carry_out(view: View, branch: Branch) -> TxnResult:
    """Do the steps in order. Raises Refused, after which nothing of it may stay."""
    results: list[StepResult] = []
    for step in branch.steps:
        results.append(carry_out(view, step) if isinstance(step, Branch) else view.do(step))
    return TxnResult(view.revision, branch.succeeded, tuple(results))
