"""Typed key-value calls: which operation each sends, and what it makes of the result."""

import asyncio
import threading

import pytest

from client import KV, LocalError, RemoteError, SyncClient, SyncKV
from client.transactions import (
    compare_created,
    compare_modified,
    compare_value,
    compare_version,
    op_delete,
    op_delete_range,
    op_get,
    op_put,
    op_range,
)
from pbft.apps.kv_codec import (
    FROM_KEY,
    Compact,
    CompactResult,
    Compare,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    decode_operation,
    encode,
)

PAIR = KeyValue(b"k", b"v", 3, 5, 2)
RESULTS = {
    Put: PutResult(7, PAIR),
    Range: RangeResult(7, (PAIR,), False, 1),
    Delete: DeleteResult(7, 1, (PAIR,)),
    Txn: TxnResult(7, True, (PutResult(7),)),
    Compact: CompactResult(7),
}


class Recorder:
    """A client whose cluster answers every operation with the result for its kind."""

    def __init__(self, results=RESULTS):
        self.results = results
        self.calls = []

    async def submit(self, operation):
        decoded = decode_operation(operation)
        self.calls.append(("submit", decoded))
        return encode(self.results[type(decoded)])

    async def query(self, operation, *, ordered=False):
        decoded = decode_operation(operation)
        self.calls.append(("ordered" if ordered else "fast", decoded))
        return encode(self.results[type(decoded)])


CALLS = [
    (lambda kv: kv.put(b"k", b"v"), "submit", Put(b"k", b"v")),
    (lambda kv: kv.put(b"k", b"v", prev=True), "submit", Put(b"k", b"v", True)),
    (lambda kv: kv.range(b"a", b"c"), "fast", Range(b"a", b"c")),
    (lambda kv: kv.range(b""), "fast", Range(FROM_KEY, FROM_KEY)),
    (
        lambda kv: kv.range(
            b"a",
            limit=2,
            revision=4,
            descending=True,
            keys_only=True,
            count_only=True,
            ordered=True,
        ),
        "ordered",
        Range(b"a", FROM_KEY, 2, 4, True, True, True),
    ),
    (
        lambda kv: kv.prefix(b"a\xff", limit=3, revision=9, ordered=True),
        "ordered",
        Range(b"a\xff", b"b", 3, 9),
    ),
    (lambda kv: kv.prefix(b""), "fast", Range(FROM_KEY, FROM_KEY)),
    (lambda kv: kv.prefix(b"\xff"), "fast", Range(b"\xff", FROM_KEY)),
    (lambda kv: kv.delete(b"k", prev=True), "submit", Delete(b"k", b"", True)),
    (lambda kv: kv.delete_range(b"a", b"c", prev=True), "submit", Delete(b"a", b"c", True)),
    (lambda kv: kv.delete_range(b"a"), "submit", Delete(b"a", FROM_KEY)),
    (
        lambda kv: kv.txn(
            (compare_version(b"k", "==", 0),), (op_put(b"k", b"v"),), (op_get(b"k"),)
        ),
        "submit",
        Txn(
            (Compare(b"k", Target.VERSION, Relation.EQUAL, 0),), (Put(b"k", b"v"),), (Range(b"k"),)
        ),
    ),
    (lambda kv: kv.compact(9), "submit", Compact(9)),
]


@pytest.mark.parametrize(("call", "how", "operation"), CALLS)
def test_each_call_sends_its_operation_and_returns_its_result(call, how, operation):
    recorder = Recorder()
    assert asyncio.run(call(KV(recorder))) == RESULTS[type(operation)]
    assert recorder.calls == [(how, operation)]


def test_get_returns_the_key_at_its_revision():
    recorder = Recorder()
    result = asyncio.run(KV(recorder).get(b"k", revision=6, ordered=True))
    assert (result.revision, result.value) == (7, b"v")
    assert (result.create_revision, result.mod_revision, result.version) == (3, 5, 2)
    assert recorder.calls == [("ordered", Range(b"k", revision=6))]


def test_a_missing_key_has_no_value():
    result = asyncio.run(KV(Recorder({Range: RangeResult(7)})).get(b"k"))
    assert (result.value, result.mod_revision) == (None, 0)


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_an_end_that_no_key_is_below_is_refused(end):
    for call in (KV(Recorder()).range, KV(Recorder()).delete_range):
        with pytest.raises(LocalError):
            asyncio.run(call(b"a", end))


def test_a_result_of_another_application_is_an_error():
    for result in (CompactResult(1), PutResult(1)):
        with pytest.raises(RemoteError):
            asyncio.run(KV(Recorder({Range: result})).get(b"k"))

    class Other(Recorder):
        async def submit(self, operation):
            return b"not a store: " + operation

    with pytest.raises(RemoteError, match="not the key-value store"):
        asyncio.run(KV(Other()).put(b"k", b"v"))


def test_transactions_are_made_of_comparisons_and_operations():
    assert compare_value(b"k", "!=", b"v") == Compare(b"k", Target.VALUE, Relation.NOT_EQUAL, b"v")
    assert compare_created(b"k", "<", 4) == Compare(b"k", Target.CREATE, Relation.LESS, 4)
    assert compare_modified(b"k", ">", 4) == Compare(b"k", Target.MOD, Relation.GREATER, 4)
    with pytest.raises(LocalError, match="is not one of"):
        compare_value(b"k", "=", b"v")
    assert op_range(b"a", limit=1) == Range(b"a", FROM_KEY, 1)
    assert op_get(b"a", revision=2) == Range(b"a", revision=2)
    assert op_delete(b"a") == Delete(b"a")
    assert op_delete_range(b"a", b"b") == Delete(b"a", b"b")


@pytest.fixture
def blocking_store(fake_cluster):
    """A SyncKV over sockets, whose cluster answers as a Recorder does; and the cluster."""
    fake_cluster.application = lambda operation: encode(RESULTS[type(decode_operation(operation))])
    ready, stop = threading.Event(), threading.Event()

    async def serve():
        async with fake_cluster:
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    keys = fake_cluster.keys
    with SyncClient(keys.config, keys.client, deadline=20) as client:
        yield SyncKV(client), fake_cluster
    stop.set()
    thread.join(10)


def test_the_blocking_store_sends_the_same_operations(blocking_store):
    kv, fake_cluster = blocking_store
    for call, how, operation in CALLS:
        assert call(kv) == RESULTS[type(operation)]
        if how != "fast":
            assert decode_operation(fake_cluster.operations[-1]) == operation
    assert kv.get(b"k").value == b"v"
