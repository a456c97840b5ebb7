from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from crypto.merkle import MerkleTree, merkle_root, root_from_path

LEAVES = st.lists(st.binary(max_size=40), min_size=1, max_size=70)


def node(left, right):
    return sha256(b"\x01" + left + right).digest()


def leaf(content):
    return sha256(b"\x00" + content).digest()


def test_a_tree_of_one_leaf_is_the_leaf():
    assert merkle_root([b"a"]) == leaf(b"a")
    assert MerkleTree([b"a"]).path(0) == ()


def test_a_tree_of_three_leaves_has_one_empty_place():
    empty = sha256(b"\x02").digest()
    expected = node(node(leaf(b"a"), leaf(b"b")), node(leaf(b"c"), empty))
    assert merkle_root([b"a", b"b", b"c"]) == expected


def test_a_tree_of_five_leaves_has_an_empty_subtree():
    empty = sha256(b"\x02").digest()
    left = node(node(leaf(b"a"), leaf(b"b")), node(leaf(b"c"), leaf(b"d")))
    right = node(node(leaf(b"e"), empty), node(empty, empty))
    assert merkle_root([b"a", b"b", b"c", b"d", b"e"]) == node(left, right)


@given(LEAVES)
def test_every_path_leads_to_the_root(leaves):
    tree = MerkleTree(leaves)
    assert tree.root == merkle_root(leaves)
    for index, content in enumerate(leaves):
        assert root_from_path(content, index, tree.path(index)) == tree.root


@pytest.mark.parametrize("count", [1, 2, 4095, 4096])
def test_the_first_and_last_paths_lead_to_the_root(count):
    leaves = [index.to_bytes(2, "big") for index in range(count)]
    tree = MerkleTree(leaves)
    for index in (0, count // 2, count - 1):
        path = tree.path(index)
        assert len(path) <= 12
        assert root_from_path(leaves[index], index, path) == tree.root


@given(LEAVES, LEAVES)
def test_different_lists_have_different_roots(one, two):
    assert (merkle_root(one) == merkle_root(two)) == (one == two)


@given(LEAVES)
def test_repeating_or_emptying_the_last_leaf_changes_the_root(leaves):
    roots = {merkle_root(leaves), merkle_root([*leaves, leaves[-1]]), merkle_root([*leaves, b""])}
    assert len(roots) == (2 if leaves[-1] == b"" else 3)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70, unique=True), st.data())
def test_a_leaf_is_not_found_at_another_index(leaves, data):
    tree = MerkleTree(leaves)
    indexes = st.integers(0, len(leaves) - 1)
    index, claimed = data.draw(indexes), data.draw(indexes)
    found = root_from_path(leaves[index], claimed, tree.path(index)) == tree.root
    assert found == (index == claimed)


@given(LEAVES, st.data())
def test_another_leaf_or_a_changed_path_misses_the_root(leaves, data):
    tree = MerkleTree(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = tree.path(index)
    assert root_from_path(leaves[index] + b"x", index, path) != tree.root
    for place in range(len(path)):
        changed = (*path[:place], bytes(32), *path[place + 1 :])
        assert root_from_path(leaves[index], index, changed) != tree.root


def test_an_inner_node_does_not_pass_for_a_leaf():
    tree = MerkleTree([b"a", b"b", b"c", b"d"])
    inner = leaf(b"a") + leaf(b"b")
    assert root_from_path(inner, 0, tree.path(0)[1:]) != tree.root
    assert root_from_path(b"\x01" + inner, 0, tree.path(0)[1:]) != tree.root


@pytest.mark.parametrize("count", [0, 4097])
def test_a_tree_has_1_to_4096_leaves(count):
    with pytest.raises(ValueError, match=r"1\.\.4096 leaves"):
        MerkleTree([b""] * count)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_path_to_a_place_without_a_leaf(index):
    with pytest.raises(IndexError):
        MerkleTree([b"a", b"b", b"c"]).path(index)


@pytest.mark.parametrize(
    ("index", "path"),
    [
        (-1, (bytes(32),)),
        (2, (bytes(32),)),
        (1, ()),
        (0, (bytes(32),) * 13),
        (0, (bytes(31),)),
        (0, (bytes(33),)),
    ],
)
def test_a_path_that_no_tree_has_is_refused(index, path):
    with pytest.raises(ValueError, match="the path"):
        root_from_path(b"a", index, path)
