"""The key-value store, one behaviour after the other; the texts of refusals are etcd's."""

import pytest

from pbft.apps import kv_writer
from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import (
    FROM_KEY,
    MAX_KEY_BYTES,
    Compact,
    Delete,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    encode,
    prefix_end,
)
from pbft.apps.kv_compaction import pending
from pbft.apps.kv_layout import decode_head, load_block
from pbft.apps.state_machine import Context, Refused

WHOLE = (FROM_KEY, FROM_KEY)


def put_numbered(store, count: int) -> None:
    for number in range(count):
        store.do(Put(b"key-%04d" % number, b"%d" % number))


def keys_of(result: RangeResult) -> list[bytes]:
    return [kv.key for kv in result.kvs]


def test_an_empty_store_is_at_revision_one(store) -> None:
    assert store.ask(Range(*WHOLE)) == RangeResult(1)


def test_versions_count_the_puts_since_the_key_was_created(store) -> None:
    store.do(Put(b"a", b"1"))
    store.do(Put(b"a", b"2"))
    assert store.ask(Range(b"a")).kvs == (KeyValue(b"a", b"2", 2, 3, 2),)
    store.do(Delete(b"a"))
    store.do(Put(b"a", b"3"))
    assert store.ask(Range(b"a")).kvs == (KeyValue(b"a", b"3", 5, 5, 1),)


def test_deleting_nothing_makes_no_revision(store) -> None:
    assert store.do(Delete(b"a")).revision == 1
    assert store.do(Put(b"a", b"")).revision == 2


def test_a_deleted_key_stays_readable_at_the_revisions_that_had_it(store) -> None:
    store.do(Put(b"a", b"1"))
    store.do(Delete(b"a"))
    assert store.ask(Range(b"a", revision=2)).kvs[0].value == b"1"
    assert store.ask(Range(b"a", revision=3)).kvs == ()


def test_a_prefix_covers_exactly_the_keys_that_begin_with_it(store) -> None:
    for key in (b"a", b"ab", b"ab\xff", b"ac", b"b", b"\xff\xff", b"\xff\xffz"):
        store.do(Put(key, b""))
    assert keys_of(store.ask(Range(b"ab", prefix_end(b"ab")))) == [b"ab", b"ab\xff"]
    assert keys_of(store.ask(Range(b"ab\xff", prefix_end(b"ab\xff")))) == [b"ab\xff"]
    assert keys_of(store.ask(Range(b"\xff", prefix_end(b"\xff")))) == [b"\xff\xff", b"\xff\xffz"]


def test_a_range_that_ends_before_it_begins_is_empty(store) -> None:
    put_numbered(store, 3)
    assert store.ask(Range(b"key-0002", b"key-0001")) == RangeResult(4)


def test_a_limit_takes_the_first_keys_of_the_chosen_order_and_says_there_are_more(store) -> None:
    put_numbered(store, 5)
    up = store.ask(Range(*WHOLE, limit=2))
    assert (keys_of(up), up.more, up.count) == ([b"key-0000", b"key-0001"], True, 2)
    down = store.ask(Range(*WHOLE, limit=2, descending=True))
    assert (keys_of(down), down.more) == ([b"key-0004", b"key-0003"], True)
    assert not store.ask(Range(*WHOLE, limit=5)).more


def test_a_range_with_a_limit_does_not_look_at_the_rest(store) -> None:
    put_numbered(store, 300)
    store.state.reads = 0
    store.ask(Range(*WHOLE, limit=3))
    assert store.state.reads < 12


def test_a_get_does_not_look_at_history(store) -> None:
    for number in range(300):
        store.do(Put(b"hot", b"%d" % number))
    store.state.reads = 0
    assert store.ask(Range(b"hot")).kvs[0].value == b"299"
    assert store.state.reads == 2


def test_a_put_costs_a_bounded_number_of_reads_and_entries(new_store) -> None:
    store = new_store(history=50)
    put_numbered(store, 200)
    for number in range(1000):
        store.state.reads = 0
        store.do(Put(b"key-%04d" % (number % 200), b"again"))
        assert store.state.reads <= 12
    assert len(store.state.entries) <= 1 + 200 + 50 // 16 + 2


def test_count_only_and_keys_only_leave_the_rest_out(store) -> None:
    put_numbered(store, 3)
    assert store.ask(Range(*WHOLE, count_only=True)) == RangeResult(4, count=3)
    assert [kv.value for kv in store.ask(Range(*WHOLE, keys_only=True)).kvs] == [b"", b"", b""]


def test_put_and_delete_tell_what_was_there_when_asked(store) -> None:
    assert store.do(Put(b"a", b"1", prev_kv=True)) == PutResult(2, None)
    assert store.do(Put(b"a", b"2", prev_kv=True)).prev_kv.value == b"1"
    assert store.do(Put(b"a", b"3")).prev_kv is None
    gone = store.do(Delete(*WHOLE, prev_kv=True))
    assert (gone.deleted, gone.prev_kvs[0].value) == (1, b"3")


# --- compaction ------------------------------------------------------------------------------


def test_a_compacted_revision_is_readable_and_those_below_are_not(store) -> None:
    put_numbered(store, 5)
    store.do(Compact(4))
    assert store.ask(Range(*WHOLE, revision=4, count_only=True)).count == 3
    with pytest.raises(Refused, match=r"^required revision has been compacted$"):
        store.ask(Range(*WHOLE, revision=3))


@pytest.mark.parametrize("revision", [0, 3, 4])
def test_a_revision_is_compacted_once(store, revision) -> None:
    put_numbered(store, 5)
    store.do(Compact(4))
    with pytest.raises(Refused, match=r"^required revision has been compacted$"):
        store.do(Compact(revision))


def test_a_future_revision_is_neither_read_nor_compacted(store) -> None:
    put_numbered(store, 1)
    for operation in (Range(b"a", revision=3), Compact(3)):
        with pytest.raises(Refused, match=r"^required revision is a future revision$"):
            store.do(operation)


def test_the_last_revisions_stay_readable_and_older_ones_go_by_themselves(new_store) -> None:
    store = new_store(history=10)
    put_numbered(store, 30)
    latest = store.ask(Range(b"x")).revision
    store.ask(Range(b"x", revision=latest - 9))
    with pytest.raises(Refused, match="compacted"):
        store.ask(Range(b"x", revision=latest - 10))


def put_many(store, *, transactions: int) -> None:
    for _ in range(transactions):
        store.do(Txn(success=tuple(Put(b"%d" % number, b"") for number in range(128))))


def blocks_of(store) -> int:
    return sum(1 for _ in store.state.range(b"r", b"s"))


def test_history_goes_over_several_operations_until_nothing_is_left_to_drop(new_store) -> None:
    store = new_store(history=1000)
    put_many(store, transactions=6)
    assert blocks_of(store) == 6 * 8 + 1
    store.do(Compact(store.ask(Range(b"x")).revision))
    assert blocks_of(store) == 6 * 8 + 1 - 16, "a compaction drops 16 itself"
    for number in range(31):
        store.do(Put(b"x", b""))
        assert blocks_of(store) == 32 - number, "each put drops one, and one for each it begins"
    assert not pending(decode_head(store.state.get(b"m")))


def test_ticks_drop_what_is_compacted_until_nothing_is_left(store) -> None:
    put_many(store, transactions=20)
    assert store.machine.next_deadline(store.state) is None
    store.do(Compact(store.ask(Range(b"x")).revision))
    context, ticks = Context(time=1, client=b"", session=0, seq=1), 0
    while store.machine.next_deadline(store.state) is not None:
        store.machine.tick(store.state, context)
        ticks += 1
    assert ticks == 3  # 161 blocks: 16 by the compaction itself, then 64 at a time
    assert len(store.state.entries) == 1 + 128


@pytest.mark.parametrize("puts", [0, 1, 14, 15, 16, 17])
def test_the_present_revision_is_readable_after_all_history_is_compacted(store, puts) -> None:
    put_numbered(store, puts)
    store.do(Compact(puts + 1))
    assert blocks_of(store) == 0
    assert store.ask(Range(*WHOLE, revision=puts + 1)).count == puts
    store.do(Put(b"key-0000", b"new"))
    assert store.ask(Range(*WHOLE, revision=puts + 1, count_only=True)).count == puts
    assert [kv.value for kv in store.ask(Range(b"key-0000")).kvs] == [b"new"]


@pytest.mark.parametrize("puts", range(14, 19))
def test_with_no_history_at_all_the_present_revision_is_readable(new_store, puts) -> None:
    store = new_store(history=1)
    put_numbered(store, puts)
    assert store.ask(Range(*WHOLE, revision=puts + 1)).count == puts


def test_a_deleted_key_leaves_nothing_once_its_block_is_dropped(new_store) -> None:
    store = new_store(history=1)
    store.do(Put(b"a", b"long" * 1000))
    store.do(Delete(b"a"))
    assert store.state.entries.keys() >= {b"ka", b"v" + bytes(7) + b"\x01"}
    for _ in range(20):
        store.do(Put(b"b", b""))
    assert not {key for key in store.state.entries if key[:1] == b"v" or key == b"ka"}


def test_a_long_value_is_written_once_and_is_there_as_long_as_a_revision_has_it(store) -> None:
    long = bytes(range(256)) * 64
    store.do(Put(b"a", long))
    for value in (b"x", long[::-1], b"y"):
        store.do(Put(b"a", value))
    read = [store.ask(Range(b"a", revision=revision)).kvs[0].value for revision in range(2, 6)]
    assert read == [long, b"x", long[::-1], b"y"]
    assert sum(len(value) for value in store.state.entries.values()) < 2 * len(long) + 1000


def test_history_of_no_revision_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        KeyValueStore(history=0)


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [Put(b"", b""), Range(b""), Delete(b"", b"z")])
def test_an_empty_key_is_refused(store, operation) -> None:
    with pytest.raises(Refused, match=r"^key is not provided$"):
        store.do(operation)


def test_the_longest_key_fits_and_a_longer_one_is_refused(store) -> None:
    longest = b"k" * MAX_KEY_BYTES
    store.do(Put(longest, b"v"))
    assert keys_of(store.ask(Range(longest, longest + b"\0"))) == [longest]
    for operation in (Put(longest + b"k", b""), Range(longest + b"k"), Delete(b"a", longest * 2)):
        with pytest.raises(Refused, match=r"^key is longer than 400 bytes$"):
            store.do(operation)


def test_a_range_stops_before_its_result_becomes_huge(store) -> None:
    for number in range(5):
        store.do(Put(b"%d" % number, b"x" * 500_000))
    for operation in (Range(*WHOLE), Delete(*WHOLE, prev_kv=True)):
        with pytest.raises(Refused, match=r"^result too large"):
            store.do(operation)
    assert store.ask(Range(*WHOLE, keys_only=True)).count == 5
    four = Range(*WHOLE, limit=4)
    assert len(store.ask(four).kvs) == 4
    with pytest.raises(Refused, match=r"^result too large"):
        store.ask(Txn(success=(four, four)))


def test_an_operation_deletes_a_bounded_number_of_keys(store, monkeypatch) -> None:
    monkeypatch.setattr(kv_writer, "MAX_DELETED", 10)
    put_numbered(store, 11)
    with pytest.raises(Refused, match="may delete at most 10 keys"):
        store.do(Delete(*WHOLE))
    halves = (Delete(b"key-0000", b"key-0006"), Delete(b"key-0006", b"key-9"))
    with pytest.raises(Refused, match="may delete at most 10 keys"):
        store.do(Txn(success=halves))
    assert [store.do(half).deleted for half in halves] == [6, 5]


@pytest.mark.parametrize("operation", [Put(b"a", b""), Delete(b"a"), Compact(1)])
def test_a_query_does_not_write(store, operation) -> None:
    with pytest.raises(Refused, match="a query cannot write"):
        store.ask(operation)


@pytest.mark.rule("R47")
def test_two_stores_with_equal_operations_hold_equal_bytes(new_store) -> None:
    first, second = new_store(history=5), new_store(history=5)
    script = [Put(b"k%d" % (n % 7), b"%d" % n) for n in range(60)]
    script[20:20] = [Delete(*WHOLE), Txn(success=(Put(b"a", b""), Put(b"b", b"")))]
    for operation in script:
        assert first.raw(encode(operation)) == second.raw(encode(operation))
    assert dict(first.state.entries) == dict(second.state.entries)


def test_the_changes_lie_in_the_order_of_their_revisions(store) -> None:
    store.do(Txn(success=(Put(b"b", b""), Put(b"a", b""))))
    store.do(Delete(*WHOLE))
    changes = load_block(store.state, 0)
    assert [(change.revision, change.key, change.deleted) for change in changes] == [
        (2, b"b", False),
        (2, b"a", False),
        (3, b"a", True),
        (3, b"b", True),
    ]
