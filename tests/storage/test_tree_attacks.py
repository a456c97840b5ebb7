"""What an adversary may try on the state trees: who chooses keys and values, orders and batches."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import count, islice
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from pbft.messages import TreeNode
from pbft.storage import tree_columns
from pbft.storage.database import Database, reading, writing
from pbft.storage.memory_database import MemoryDatabase, MemoryTransaction
from pbft.storage.merkle_trie import MerkleTrie
from pbft.storage.state_trees import write_entries
from pbft.storage.tree_columns import Bucket
from pbft.storage.tree_node import (
    BUCKET_BYTES,
    BUCKET_ENTRIES,
    bucket_digest,
    entry_digest,
    inner_digest,
    node_digest,
)

TABLES = ("map", "nodes")
TREE = MerkleTrie(0, "map", "nodes")
ROOT = b"\x00"
Changes = dict[bytes, bytes | None]


def change(database: Database, changes: Changes) -> None:
    with writing(database) as transaction:
        write_entries(transaction, TREE, changes)


def stored(database: Database) -> list[tuple[bytes, bytes]]:
    with reading(database) as reader:
        return list(reader.scan("nodes"))


def buckets(database: Database) -> list[Bucket]:
    nodes = (msgspec.msgpack.decode(raw) for _, raw in stored(database))
    return [Bucket(*fields) for tag, *fields in nodes if tag == 0]


def depth(database: Database) -> int:
    return max(len(path) for path, _ in stored(database))


class Counting(MemoryTransaction):
    """Counts the nodes that an update touches."""

    touched = 0

    def get(self, table: str, key: bytes) -> bytes | None:
        self.touched += table == "nodes"
        return super().get(table, key)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.touched += table == "nodes"
        super().put(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self.touched += table == "nodes"
        super().delete(table, key)


def cost(database: MemoryDatabase, changes: Changes) -> int:
    transaction = Counting(database, database._tables)
    write_entries(transaction, TREE, changes)
    return transaction.touched


# -- orders and batches

keys = st.integers(0, 199).map(lambda i: b"k%02d" % (i // 50) + b"%03d" % i)
values = st.sampled_from([b"", b"x", b"y" * 50, bytes(BUCKET_BYTES // 3)])
contents = st.dictionaries(keys, values, max_size=180)


@pytest.mark.rule("R21")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=contents,
    changes=st.dictionaries(keys, st.none() | values, max_size=180),
    batches=st.integers(1, 8),
    random=st.randoms(use_true_random=False),
)
def test_any_order_and_batching_of_changes_gives_the_same_nodes(
    make_database, before: Changes, changes: Changes, batches: int, random: Random
) -> None:
    at_once, by_parts = make_database(TABLES), make_database(TABLES)
    for database in (at_once, by_parts):
        change(database, before)
    change(at_once, dict(sorted(changes.items())))
    order = list(changes)
    random.shuffle(order)
    for batch in range(batches):
        change(by_parts, {key: changes[key] for key in order[batch::batches]})
    assert stored(by_parts) == stored(at_once)
    scratch = make_database(TABLES)
    change(scratch, {key: value for key, value in (before | changes).items() if value is not None})
    assert stored(scratch) == stored(at_once)
    for database in (at_once, by_parts, scratch):
        database.close()


# -- second preimages

DIGESTS = tuple(sha256(bytes([i])).digest() for i in range(16))


def test_no_level_of_the_tree_can_stand_for_another() -> None:
    """The same bytes as an entry, as a bucket and as an inner node, the path in or out of them."""
    joined = b"".join(DIGESTS)
    digests = [
        function(path, joined[at:])
        for function in (inner_digest, bucket_digest, entry_digest)
        for path, at in ((ROOT, 0), (b"", 0), (ROOT + joined[:1], 1))
    ]
    digests += [function(b"", ROOT + joined) for function in (inner_digest, bucket_digest)]
    digests.append(entry_digest(b"", ROOT + joined))
    assert len(set(digests)) == len(digests)


def framed(domain: bytes, path: bytes, rest: bytes) -> bytes:
    return len(domain).to_bytes(8, "big") + domain + len(path).to_bytes(2, "big") + path + rest


@pytest.mark.rule("R23")
@pytest.mark.parametrize("domain", [b"pbft/1 tree node", b"pbft/1 tree bucket"])
def test_a_value_that_is_the_preimage_of_a_node_stands_for_no_node(domain: bytes) -> None:
    """A client writes what a node of its own choice hashes; nobody can pass it off as that node."""
    forged = framed(domain, ROOT, b"".join(DIGESTS))
    database = MemoryDatabase(TABLES)
    change(database, {forged[:40]: forged[40:], b"k": forged} | {b"%d" % i: b"" for i in range(40)})
    with reading(database) as reader:
        known = {TREE.digest_at(reader, path) for path, _ in stored(database)}
        known |= {digest for bucket in buckets(database) for _, _, digest in bucket.entries()}
    own = bucket_digest if b"bucket" in domain else inner_digest
    assert sha256(forged).digest() == own(ROOT, b"".join(DIGESTS))
    assert sha256(forged).digest() not in known
    assert node_digest(TreeNode(ROOT, DIGESTS, ())) not in known


@given(st.binary(min_size=1, max_size=6), st.binary(max_size=6), st.integers(1, 6))
def test_bytes_cannot_move_between_a_key_and_its_value(key: bytes, value: bytes, at: int) -> None:
    joined = key + value
    other = joined[:at], joined[at:]
    assert (entry_digest(*other) == entry_digest(key, value)) == (other == (key, value))


# -- chosen keys


def ground(prefix: bytes) -> Iterator[bytes]:
    """Keys whose hashes begin with `prefix`."""
    for number in count():
        key = b"chosen %d" % number
        if sha256(key).digest().startswith(prefix):
            yield key


def check_bounds(database: Database) -> None:
    for bucket in buckets(database):
        assert len(bucket.keys) <= BUCKET_ENTRIES
        assert sum(bucket.sizes) <= BUCKET_BYTES or len(bucket.keys) == 1


@pytest.mark.rule("R43")
def test_keys_that_share_a_long_prefix_make_the_tree_deeper_and_no_bucket_large() -> None:
    database = MemoryDatabase(TABLES)
    honest = {b"honest %d" % i: b"v" for i in range(2000)}
    change(database, honest)
    before = depth(database)
    one = next(iter(honest))
    cheap = cost(database, {one: b"w"})
    chosen = list(islice(ground(b"\x00\x00"), BUCKET_ENTRIES + 8))
    change(database, dict.fromkeys(chosen, b"v"))
    check_bounds(database)
    assert before < depth(database) <= 1 + 4 + 2  # the tree, four nibbles in common, the rest
    assert cost(database, {chosen[0]: b"w"}) <= 2 * depth(database)
    assert cost(database, {one: b"w"}) == cheap
    change(database, dict.fromkeys(chosen))
    assert depth(database) == before


@pytest.mark.rule("R43")
@pytest.mark.parametrize("common", [10, 20, 31])
def test_a_bucket_stays_small_whatever_an_adversary_could_grind(
    common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than anybody can: whole bytes of the hash in common, up to all but the last."""
    real = tree_columns.place_of
    monkeypatch.setattr(
        tree_columns, "place_of", lambda key: bytes(2 * common) + real(key)[2 * common :]
    )
    database = MemoryDatabase(TABLES)
    by_rest = {real(b"%d" % i)[2 * common :]: b"%d" % i for i in range(400)}  # no two are alike
    chosen = dict.fromkeys(by_rest.values(), b"v")
    assert len(chosen) > 2 * BUCKET_ENTRIES
    change(database, chosen)
    check_bounds(database)
    assert depth(database) > 2 * common
    assert cost(database, {next(iter(chosen)): b"w"}) <= 2 * depth(database)
    change(database, {key: bytes(BUCKET_BYTES // 4) for key in chosen})
    check_bounds(database)
    change(database, dict.fromkeys(chosen))
    assert stored(database) == []


# -- what an update costs


def test_a_change_costs_at_most_a_level_more_in_a_state_of_sixteen_times_the_size() -> None:
    random = Random(1)
    costs = []
    for size in (250, 4_000, 64_000):
        database = MemoryDatabase(TABLES)
        change(database, {b"%d" % i: b"v" for i in range(size)})
        changed = (b"%d" % i for i in random.sample(range(size), 50))
        costs.append(sum(cost(database, {key: b"w"}) for key in changed) / 50)
    assert costs[1] <= costs[0] + 2  # one node more is read and written
    assert costs[2] <= costs[1] + 2


def test_what_came_and_went_between_two_checkpoints_costs_the_tree_nothing() -> None:
    database = MemoryDatabase(TABLES)
    change(database, {b"%d" % i: b"v" for i in range(500)})
    assert cost(database, dict.fromkeys([b"never", b"there"])) == 0
