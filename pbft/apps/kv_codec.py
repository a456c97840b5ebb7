"""The key-value store's operations and results as bytes: all that a client needs to know of it.

The model is etcd's v3 API (etcd.io/docs, "API reference": rpc.proto). Each operation and result is
one MessagePack array in canonical form. `range_end` follows etcd's conventions: empty means the
single key, `FROM_KEY` everything from the key on, anything else an exclusive end; `key` and
`range_end` both `FROM_KEY` is the whole store. Revisions, versions and limits are unsigned 63-bit
integers; 0 stands for "now" as a revision and "no limit" as a limit.
"""

from enum import IntEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MAX_KEY_BYTES = 400
MAX_TXN_OPERATIONS = 128  # in each list of one transaction
MAX_TXN_TOTAL = 384  # compares and operations of a transaction with all that are nested in it
MAX_TXN_DEPTH = 8
FROM_KEY = b"\0"

_LIST = 1024  # what a decoder allocates at most for one list before the limits above are looked at

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class MalformedOperation(Exception):
    """Bytes that are not an operation, or not in canonical form, or nested too deeply."""


class MalformedResult(Exception):
    """Bytes that are not a result."""


# --- operations ------------------------------------------------------------------------------


class Operation(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client asks for."""


class Put(Operation, frozen=True, tag=1):
    """Set `key` to `value`; `prev_kv` asks for what was there before."""

    key: bytes
    value: bytes
    prev_kv: bool = False


class Range(Operation, frozen=True, tag=2):
    """The live keys from `key` to `range_end`, in order, as of `revision`.

    Without a limit, or with `count_only`, the result's `count` covers the whole range; with a limit
    it is the number of keys returned, and `more` says whether there are others.
    """

    key: bytes
    range_end: bytes = b""
    limit: Number = 0
    revision: Number = 0
    descending: bool = False
    keys_only: bool = False
    count_only: bool = False


class Delete(Operation, frozen=True, tag=3):
    """Delete the live keys from `key` to `range_end`; `prev_kv` asks for what they were."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Target(IntEnum):
    """What a compare looks at (etcd's numbers; 4 is kept for the lease)."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3


class Relation(IntEnum):
    """How the key's attribute must stand to the operand (etcd's numbers)."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A condition on a key, or on every live key of a range.

    `operand` is bytes for Target.VALUE and a number for the others. Of a key that is not there all
    numbers are 0, and no compare of its value holds.
    """

    key: bytes
    target: Target
    relation: Relation
    operand: Number | bytes
    range_end: bytes = b""


class Txn(Operation, frozen=True, tag=4):
    """`success` if all `compares` hold, else `failure`; all at one revision, or not at all.

    All compares, also of nested transactions, look at the state before the first write.
    """

    compares: Annotated[tuple[Compare, ...], Meta(max_length=_LIST)] = ()
    success: Annotated[tuple["Put | Range | Delete | Txn", ...], Meta(max_length=_LIST)] = ()
    failure: Annotated[tuple["Put | Range | Delete | Txn", ...], Meta(max_length=_LIST)] = ()


class Compact(Operation, frozen=True, tag=5):
    """Forget all history before `revision`, which itself stays readable."""

    revision: Number


Step = Put | Range | Delete | Txn
AnyOperation = Put | Range | Delete | Txn | Compact


# --- results ---------------------------------------------------------------------------------


class KeyValue(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One key at one revision; `version` counts its puts since it was created."""

    key: bytes
    value: bytes
    create_revision: Number
    mod_revision: Number
    version: Number
    lease: Number = 0


_KeyValues = Annotated[tuple[KeyValue, ...], Meta(max_length=2**20)]


class Result(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An operation's outcome; `revision` is the store's when it was done."""

    revision: Number


class PutResult(Result, frozen=True, tag=1):
    """`prev_kv` is None unless it was asked for and there."""

    prev_kv: KeyValue | None = None


class RangeResult(Result, frozen=True, tag=2):
    """See Range."""

    kvs: _KeyValues = ()
    more: bool = False
    count: Number = 0


class DeleteResult(Result, frozen=True, tag=3):
    """`deleted` keys are gone; `prev_kvs` is empty unless asked for."""

    deleted: Number = 0
    prev_kvs: _KeyValues = ()


class TxnResult(Result, frozen=True, tag=4):
    """`results` are those of the branch that was taken, in its order."""

    succeeded: bool
    results: Annotated[
        tuple["PutResult | RangeResult | DeleteResult | TxnResult", ...], Meta(max_length=_LIST)
    ] = ()


class CompactResult(Result, frozen=True, tag=5):
    """Done."""


StepResult = PutResult | RangeResult | DeleteResult | TxnResult
AnyResult = PutResult | RangeResult | DeleteResult | TxnResult | CompactResult


# --- bytes -----------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyOperation)
_results: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyResult)


def encode(value: Operation | Result) -> bytes:
    """The canonical bytes of an operation or a result."""
    return _encoder.encode(value)


def decode_operation(raw: bytes) -> AnyOperation:
    """The operation that `raw` encodes. Raises MalformedOperation, always with the same text."""
    operation = _decode(_operations, raw)
    # How deep the decoder can go depends on the machine, which must not show in the answer.
    too_deep = isinstance(operation, Txn) and depth(operation) > MAX_TXN_DEPTH
    if operation is None or too_deep or encode(operation) != raw:
        raise MalformedOperation("malformed key-value operation")
    checked: AnyOperation = operation
    return checked


def decode_result(raw: bytes) -> AnyResult:
    """The result that `raw` encodes. Raises MalformedResult."""
    result = _decode(_results, raw)
    if result is None or encode(result) != raw:
        raise MalformedResult("malformed key-value result")
    checked: AnyResult = result
    return checked


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError):
        return None


def depth(operation: AnyOperation) -> int:
    """How many transactions lie around the innermost operation, at most MAX_TXN_DEPTH + 1."""
    level, found = [operation], 0
    while found <= MAX_TXN_DEPTH:
        transactions = [each for each in level if isinstance(each, Txn)]
        if not transactions:
            break
        found += 1
        level = [step for txn in transactions for step in (*txn.success, *txn.failure)]
    return found


def prefix_end(prefix: bytes) -> bytes:
    """The `range_end` that makes a range cover all keys beginning with `prefix`."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else FROM_KEY
