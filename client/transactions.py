"""What a key-value transaction is made of: comparisons and operations.

A comparison is of a key's value, version, or the revision at which it was created or last changed;
the relation is one of "==", "!=", "<", ">". Of a key that is not there all numbers are 0.
"""

from typing import Literal

from client.errors import LocalError
from pbft.apps.kv_codec import FROM_KEY, Compare, Delete, Put, Range, Relation, Target

Symbol = Literal["==", "!=", "<", ">"]

_RELATIONS: dict[str, Relation] = {
    "==": Relation.EQUAL,
    "!=": Relation.NOT_EQUAL,
    "<": Relation.LESS,
    ">": Relation.GREATER,
}


def _compare(key: bytes, target: Target, relation: Symbol, operand: int | bytes) -> Compare:
    if relation not in _RELATIONS:
        raise LocalError(f"{relation!r} is not one of ==, !=, < and >")
    return Compare(key, target, _RELATIONS[relation], operand)


def compare_value(key: bytes, relation: Symbol, value: bytes) -> Compare:
    """Compare the value of `key`; never holds for a key that is not there."""
    return _compare(key, Target.VALUE, relation, value)


def compare_version(key: bytes, relation: Symbol, version: int) -> Compare:
    """Compare how often `key` was put since it was created; 0: it is not there."""
    return _compare(key, Target.VERSION, relation, version)


def compare_created(key: bytes, relation: Symbol, revision: int) -> Compare:
    """Compare the revision at which `key` was created."""
    return _compare(key, Target.CREATE, relation, revision)


def compare_modified(key: bytes, relation: Symbol, revision: int) -> Compare:
    """Compare the revision at which `key` was last put."""
    return _compare(key, Target.MOD, relation, revision)


def op_put(key: bytes, value: bytes, *, prev: bool = False) -> Put:
    """Set `key`; with `prev` the result holds what was there before."""
    return Put(key, value, prev)


def op_get(key: bytes, *, revision: int = 0) -> Range:
    """Look up `key`."""
    return Range(key, revision=revision)


def op_range(
    start: bytes,
    end: bytes | None = None,
    *,
    limit: int = 0,
    revision: int = 0,
    descending: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
) -> Range:
    """The keys from `start` up to but without `end`; None: up to the last one.

    Raises LocalError for an end that no key is below.
    """
    first, range_end = bounds(start, end)
    return Range(first, range_end, limit, revision, descending, keys_only, count_only)


def op_delete(key: bytes, *, prev: bool = False) -> Delete:
    """Delete `key`; with `prev` the result holds what it was."""
    return Delete(key, prev_kv=prev)


def op_delete_range(start: bytes, end: bytes | None = None, *, prev: bool = False) -> Delete:
    """Delete the keys from `start` up to but without `end`. Raises as `op_range` does."""
    return Delete(*bounds(start, end), prev)


def bounds(start: bytes, end: bytes | None) -> tuple[bytes, bytes]:
    """The wire's `key` and `range_end`, where b"" and b"\\0" as an end have other meanings."""
    if end is None:
        return start or FROM_KEY, FROM_KEY
    if end <= FROM_KEY:
        raise LocalError("no key is below this end of the range; None stands for no end")
    return start or FROM_KEY, end
