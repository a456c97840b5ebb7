"""Operations and results as bytes: strict, canonical, bounded."""

import msgspec
import pytest

from pbft.apps.kv_codec import (
    Compact,
    Compare,
    Delete,
    KeyValue,
    MalformedOperation,
    MalformedResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    decode_operation,
    decode_result,
    encode,
    prefix_end,
)

OPERATIONS = [
    Put(b"k", b"v", prev_kv=True),
    Range(b"k", b"l", 1, 2, True, True, True),
    Delete(b"k", b"\0", True),
    Txn(
        (Compare(b"k", Target.VALUE, Relation.LESS, b"v", b"l"),),
        (Put(b"k", b"v"), Txn(success=(Range(b"k"),))),
        (Delete(b"k"),),
    ),
    Compact(7),
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_survive_encoding(operation) -> None:
    assert decode_operation(encode(operation)) == operation


def test_results_survive_encoding() -> None:
    kv = KeyValue(b"k", b"v", 1, 2, 3)
    result = TxnResult(9, True, (PutResult(9, kv), RangeResult(9, (kv,), True, 1)))
    assert decode_result(encode(result)) == result


PUT = encode(Put(b"k", b"v"))
MALFORMED = {
    "nothing": b"",
    "cut off": PUT[:-1],
    "trailing byte": PUT + b"\0",
    "longer form of the same": b"\x94\x01\xc5\x00\x01k\xc4\x01v\xc2",
    "default left out": msgspec.msgpack.encode([1, b"k", b"v"]),
    "unknown operation": msgspec.msgpack.encode([9, b"k", b"v", False]),
    "one field too many": msgspec.msgpack.encode([1, b"k", b"v", False, 0]),
    "text for bytes": msgspec.msgpack.encode([1, "k", b"v", False]),
    "number for a flag": msgspec.msgpack.encode([1, b"k", b"v", 0]),
    "flag for a number": msgspec.msgpack.encode([5, True]),
    "negative revision": msgspec.msgpack.encode([5, -1]),
    "revision of 2^63": msgspec.msgpack.encode([5, 2**63]),
    "unknown target": msgspec.msgpack.encode([4, [[b"k", 4, 0, 0, b""]], [], []]),
    "unknown relation": msgspec.msgpack.encode([4, [[b"k", 0, 4, 0, b""]], [], []]),
    "compaction in a transaction": msgspec.msgpack.encode([4, [], [[5, 1]], []]),
    "2^32-1 steps announced": b"\x94\x04\x90\xdd\xff\xff\xff\xff",
    "4 GB of key announced": b"\x94\x01\xc6\xff\xff\xff\xff",
    "nested a million times": b"\x94\x04\x90\x91" * 1_000_000,
    "nested in a place of bytes": b"\x94\x01" + b"\x91" * 1_000_000,
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_an_operation_is_refused_with_one_text(raw) -> None:
    with pytest.raises(MalformedOperation, match=r"^malformed key-value operation$"):
        decode_operation(raw)


@pytest.mark.parametrize("raw", [b"", b"\xc0", PUT, encode(PutResult(1)) + b"\0"])
def test_what_is_not_a_result_is_refused(raw) -> None:
    with pytest.raises(MalformedResult):
        decode_result(raw)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")],
)
def test_a_prefix_ends_where_its_last_byte_can_be_raised(prefix, end) -> None:
    assert prefix_end(prefix) == end
