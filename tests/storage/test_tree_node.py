from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from crypto.digests import DIGEST_BYTES
from pbft.messages import TreeNode
from pbft.storage.database import MAX_RECORD_KEY_BYTES
from pbft.storage.tree_node import (
    BUCKET_ENTRIES,
    EMPTY_DIGEST,
    MalformedNode,
    entry_digest,
    node_digest,
    place_of,
)

ROOT = b"\x00"
CHILDREN = tuple(bytes([i]) * 32 for i in range(16))


def bucket(*keys: bytes, path: bytes = ROOT) -> TreeNode:
    return TreeNode(path, (), tuple((key, b"v") for key in sorted(keys)))


def test_nothing_at_one_place_can_stand_for_something_elsewhere() -> None:
    key = b"k"
    at = ROOT + place_of(key)[:2]
    places = [at[:1], at[:2], at, b"\x01" + at[1:]]
    digests = [node_digest(bucket(key, path=path)) for path in places]
    digests += [node_digest(TreeNode(path, CHILDREN, ())) for path in places]
    assert len(set(digests)) == len(digests)


def test_an_empty_subtree_is_the_same_everywhere() -> None:
    assert node_digest(TreeNode(ROOT, (), ())) == EMPTY_DIGEST
    assert node_digest(TreeNode(b"\x01\x05", (), ())) == EMPTY_DIGEST


@given(st.binary(min_size=1, max_size=40), st.integers(0, 64))
def test_a_key_is_below_exactly_the_prefixes_of_its_hash(key: bytes, depth: int) -> None:
    hashed = sha256(key).digest()
    path = ROOT + bytes(hashed[i // 2] >> (0 if i % 2 else 4) & 15 for i in range(depth))
    assert len(node_digest(bucket(key, path=path))) == 32
    if depth:
        with pytest.raises(MalformedNode, match="out of place"):
            node_digest(bucket(key, path=path[:-1] + bytes([path[-1] ^ 1])))


def test_what_only_a_damaged_table_can_hold_has_a_digest_as_well() -> None:
    """So that whoever compares the table with its tree finds it, and does not fail on it."""
    assert len(entry_digest(b"k" * MAX_RECORD_KEY_BYTES, b"v")) == DIGEST_BYTES


@pytest.mark.rule("R23")
@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (TreeNode(b"", (), ()), "not a path"),
        (TreeNode(b"\x02", (), ()), "not a path"),
        (TreeNode(b"\x00\x10", (), ()), "not a path"),
        (TreeNode(ROOT, CHILDREN[:15], ()), "16 children"),
        (TreeNode(ROOT, CHILDREN, ((b"k", b"v"),)), "not both"),
        (bucket(*(b"%d" % i for i in range(BUCKET_ENTRIES + 1))), "too many entries"),
        (TreeNode(ROOT, (), ((b"", b"v"),)), "wrong length"),
        (TreeNode(ROOT, (), ((b"k" * 481, b"v"),)), "wrong length"),
        (TreeNode(ROOT, (), bucket(b"a", b"b").entries[::-1]), "out of place"),
        (TreeNode(ROOT, (), ((b"a", b"1"), (b"a", b"2"))), "out of place"),
        (bucket(b"k", path=bytes([0, place_of(b"k")[0] ^ 1])), "out of place"),
    ],
)
def test_a_node_that_contradicts_itself_is_refused(node: TreeNode, reason: str) -> None:
    with pytest.raises(MalformedNode, match=reason):
        node_digest(node)
