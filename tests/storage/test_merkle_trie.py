import hashlib
from collections.abc import Iterator, Mapping
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from pbft.codec import encode
from pbft.messages import TreeNode
from pbft.storage.database import CorruptRecord, Reader, reading, writing
from pbft.storage.memory_database import MemoryDatabase, MemoryTransaction
from pbft.storage.merkle_trie import MerkleTrie
from pbft.storage.state_trees import write_entries
from pbft.storage.tree_columns import Bucket, Inner
from pbft.storage.tree_node import (
    BUCKET_BYTES,
    BUCKET_ENTRIES,
    EMPTY_DIGEST,
    node_digest,
    place_of,
)

ROOT = b"\x00"
TREE = MerkleTrie(0, "map", "nodes")
Changes = dict[bytes, bytes | None]


def empty() -> MemoryDatabase:
    return MemoryDatabase(("map", "nodes"))


def change(database: MemoryDatabase, changes: Changes) -> bytes:
    with writing(database) as transaction:
        write_entries(transaction, TREE, changes)
    return root(database)


def root(database: MemoryDatabase) -> bytes:
    with reading(database) as reader:
        return TREE.root(reader)


def nodes(database: MemoryDatabase) -> dict[bytes, bytes]:
    with reading(database) as reader:
        return dict(reader.scan("nodes"))


def from_scratch(content: Mapping[bytes, bytes | None]) -> MemoryDatabase:
    database = empty()
    change(database, dict(content))
    return database


def many(count: int, size: int = 1) -> Changes:
    return {b"key-%d" % i: b"v" * size for i in range(count)}


# 200 keys, of which many share the first nibbles of their hashes; some values split a bucket alone.
keys = st.integers(0, 199).map(lambda i: b"key-%d" % i)
values = st.sampled_from([b"", b"x", b"y", bytes(BUCKET_BYTES // 2)])
changes = st.dictionaries(keys, st.none() | values, max_size=160)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, max_size=6))
def test_the_tree_depends_on_the_content_alone(history: list[Changes]) -> None:
    database = empty()
    content: dict[bytes, bytes] = {}
    for step in history:
        change(database, step)
        for key, value in step.items():
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
    scratch = from_scratch(content)
    assert root(database) == root(scratch)
    assert nodes(database) == nodes(scratch)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, min_size=1, max_size=160), st.randoms(use_true_random=False))
def test_the_order_of_puts_and_deletes_does_not_matter(
    content: dict[bytes, bytes], random: Random
) -> None:
    order = list(content)
    random.shuffle(order)
    database = empty()
    for key in [*order, *reversed(order)]:
        change(database, {key: content[key]})
    change(database, dict.fromkeys([b"never-there"]))
    assert root(database) == root(from_scratch(content))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, values, max_size=120), keys, st.none() | values)
def test_another_content_has_another_root(
    content: dict[bytes, bytes], key: bytes, value: bytes | None
) -> None:
    before = root(from_scratch(content))
    after = change(from_scratch(content), {key: value})
    assert (after == before) == (content.get(key) == value)


def test_an_empty_tree_has_the_empty_root_and_no_nodes() -> None:
    database = empty()
    assert root(database) == EMPTY_DIGEST
    change(database, many(100))
    assert change(database, dict.fromkeys(many(100))) == EMPTY_DIGEST
    assert nodes(database) == {}


def test_a_bucket_splits_above_its_bound_and_merges_again() -> None:
    database = empty()
    at_bound = change(database, many(BUCKET_ENTRIES))
    assert list(nodes(database)) == [ROOT]
    change(database, {b"one more": b"v"})
    assert len(nodes(database)) > 2
    assert change(database, {b"one more": None}) == at_bound
    assert list(nodes(database)) == [ROOT]


def test_more_changes_than_a_bucket_has_entries_may_leave_a_bucket() -> None:
    database = empty()
    before = many(BUCKET_ENTRIES)
    change(database, dict(before))
    turned: Changes = dict.fromkeys(many(BUCKET_ENTRIES - 2))
    turned |= {b"new-%d" % i: b"" for i in range(9)}
    change(database, turned)
    left = {key: value for key, value in (before | turned).items() if value is not None}
    assert len(turned) > BUCKET_ENTRIES > len(left)
    assert nodes(database) == nodes(from_scratch(left))
    change(database, dict.fromkeys(left) | dict.fromkeys(many(BUCKET_ENTRIES + 1)))
    assert nodes(database) == {}


def test_a_bucket_of_large_values_splits_by_its_bytes() -> None:
    database = empty()
    change(database, {b"a": bytes(BUCKET_BYTES - 1)})
    assert list(nodes(database)) == [ROOT]
    change(database, {b"b": b"v"})
    assert len(nodes(database)) > 1
    change(database, {b"a": b"small"})
    assert list(nodes(database)) == [ROOT]
    change(database, {b"b": None, b"a": bytes(4 * BUCKET_BYTES)})
    assert list(nodes(database)) == [ROOT]


class Counting(MemoryTransaction):
    """Counts what touches the tree's nodes."""

    reads = writes = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        self.reads += table == "nodes"
        return super().get(table, key)

    def scan(
        self, table: str, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for item in super().scan(table, start, end, reverse=reverse):
            self.reads += table == "nodes"
            yield item

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.writes += table == "nodes"
        super().put(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self.writes += table == "nodes"
        super().delete(table, key)


def cost(database: MemoryDatabase, changes: Changes) -> tuple[int, int]:
    transaction = Counting(database, database._tables)
    write_entries(transaction, TREE, changes)
    return transaction.reads, transaction.writes


def test_an_update_costs_in_proportion_to_what_changed() -> None:
    database = from_scratch(many(5000))
    assert len(nodes(database)) > 200
    depth = max(map(len, nodes(database)))
    assert cost(database, {}) == (0, 0)
    for key in (b"key-0", b"key-4999"):
        reads, writes = cost(database, {key: b"changed"})
        assert reads <= depth
        assert 2 <= writes <= depth
        assert cost(database, {key: b"v"})[1] == 0
    reads, writes = cost(database, {b"key-%d" % i: b"changed" for i in range(10)})
    assert reads <= 10 * depth
    assert writes <= 10 * depth


def every_path(database: MemoryDatabase) -> list[bytes]:
    stored = list(nodes(database))
    return [ROOT, *stored, *(path + b"\x03" for path in stored), ROOT + bytes(64)]


@pytest.mark.rule("R23")
def test_the_digest_of_a_subtree_is_that_of_the_node_which_is_sent_for_it() -> None:
    database = from_scratch(many(300))
    with reading(database) as reader:
        for path in every_path(database):
            node = TREE.node(reader, path)
            assert node.path == path
            assert node_digest(node) == TREE.digest_at(reader, path)
            below = [key for key in many(300) if (ROOT + place_of(key)).startswith(path)]
            assert sorted(TREE.keys_below(reader, path)) == sorted(below)
            for nibble, child in enumerate(node.children):
                assert TREE.digest_at(reader, path + bytes([nibble])) == child


def test_the_size_of_a_node_is_known_without_its_values() -> None:
    database = from_scratch(many(300, size=1000))

    class Blind:
        """Reads everything but values."""

        def __init__(self, reader: Reader) -> None:
            self.scan = reader.scan
            self._reader = reader

        def get(self, table: str, key: bytes) -> bytes | None:
            assert table == "nodes"
            return self._reader.get(table, key)

    with reading(database) as reader:
        for path in every_path(database):
            node = TREE.node(reader, path)
            real = sum(map(len, node.children)) + sum(len(k) + len(v) for k, v in node.entries)
            assert TREE.size_at(Blind(reader), path) == real


@pytest.mark.parametrize("path", [b"", b"\x02", b"\x00\x10", bytes(66), b"\x01"])
def test_what_is_no_path_of_this_tree_is_refused(path: bytes) -> None:
    with reading(empty()) as reader, pytest.raises(ValueError, match="path"):
        TREE.node(reader, path)


def test_a_value_that_has_got_lost_is_corruption() -> None:
    database = from_scratch({b"k": b"v"})
    with writing(database) as transaction:
        transaction.delete("map", b"k")
    with reading(database) as reader, pytest.raises(CorruptRecord, match="'map' has lost its key"):
        TREE.node(reader, ROOT)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"\x93\x00", "no tree node"),
        (encode(Bucket([b"k"], [2], bytearray(31))), "contradicts itself"),
        (encode(Bucket([b"k"], [], bytearray(32))), "contradicts itself"),
        (encode(Inner([0] * 16, [0] * 16, bytearray(15 * 32))), "contradicts itself"),
    ],
)
def test_a_node_that_is_none_is_corruption(stored: bytes, reason: str) -> None:
    database = from_scratch({b"k": b"v"})
    with writing(database) as transaction:
        transaction.put("nodes", ROOT, stored)
    with reading(database) as reader, pytest.raises(CorruptRecord, match=reason):
        TREE.root(reader)


def test_the_digests_are_as_documented() -> None:
    """An independent computation: the format is part of the protocol."""

    def hashed(domain: bytes, framed: bytes, rest: bytes) -> bytes:
        lengths = len(domain).to_bytes(8, "big"), len(framed).to_bytes(2, "big")
        return hashlib.sha256(lengths[0] + domain + lengths[1] + framed + rest).digest()

    content = dict(many(BUCKET_ENTRIES + 1))
    expected = [EMPTY_DIGEST] * 16
    for nibble in range(16):
        inside = [key for key in content if hashlib.sha256(key).digest()[0] >> 4 == nibble]
        inside.sort()
        leaves = b"".join(hashed(b"pbft/1 tree entry", key, b"v") for key in inside)
        if inside:
            expected[nibble] = hashed(b"pbft/1 tree bucket", bytes([0, nibble]), leaves)
    wanted = hashed(b"pbft/1 tree node", b"\x00", b"".join(expected))
    database = empty()
    assert change(database, content) == wanted
    with reading(database) as reader:
        assert TREE.node(reader, ROOT) == TreeNode(ROOT, tuple(expected), ())
