"""Serving a pinned state, and installing the state of another replica."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from pbft.messages import StateSummary, TreeNode, TreePath
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_map import StateIncomplete
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES
from pbft.storage.tree_node import node_digest

Content = dict[bytes, bytes]


def state_of(application: Content, sessions: Content | None = None, seq: int = 1) -> StateStore:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    for number in range(1, seq + 1):
        store.begin_batch(number, number * 10)
    for key, value in application.items():
        store.application.put(key, value)
    for key, value in (sessions or {}).items():
        store.sessions.put(key, value)
    store.flush()
    return store


def fetch(store: StateStore, source: PinnedState) -> list[TreePath]:
    """Compare and install until nothing differs, each node verified; returns what was fetched."""
    summary = source.summary
    roots = {b"\x00": summary.application_root, b"\x01": summary.sessions_root}
    wanted = [(path, roots[path]) for path in store.differing_roots()]
    fetched = []
    while wanted:
        path, digest = wanted.pop()
        node = source.node(path)
        assert node_digest(node) == digest
        fetched.append(path)
        if node.children:
            wanted += [(child, node.children[child[-1]]) for child in store.diff(node)]
        else:
            store.install(node)
    return fetched


def many(count: int, value: bytes = b"v") -> Content:
    return {b"key-%d" % i: value for i in range(count)}


def content(store: StateStore) -> tuple[Content, Content]:
    return dict(store.application.range()), dict(store.sessions.range())


keys = st.integers(0, 300).map(lambda i: b"key-%d" % i)
contents = st.dictionaries(keys, st.sampled_from([b"", b"x", b"y"]), max_size=240)


@pytest.mark.rule("R23")
@settings(max_examples=60, deadline=None)
@given(contents, contents, contents, contents)
def test_any_state_becomes_any_other(
    application: Content, sessions: Content, old_application: Content, old_sessions: Content
) -> None:
    source = state_of(application, sessions, seq=7)
    store = state_of(old_application, old_sessions, seq=3)
    store.begin_transfer(source.summary())
    fetch(store, source.pin())
    assert store.finish_transfer()
    assert content(store) == (application, sessions)
    assert (store.seq, store.time) == (7, 70)
    assert store.summary() == source.summary()
    store.begin_batch(8, 80)
    source.begin_batch(8, 80)
    assert store.flush() == source.flush()


def test_only_what_differs_is_fetched() -> None:
    source = state_of(many(3000) | {b"key-7": b"changed"}, many(100), seq=2)
    store = state_of(many(3000), many(100))
    store.begin_transfer(source.summary())
    assert store.differing_roots() == [b"\x00"]
    fetched = fetch(store, source.pin())
    assert len(fetched) <= 4
    assert store.finish_transfer()


def test_an_empty_subtree_needs_no_fetching() -> None:
    store = state_of(many(100))
    source = state_of({}, seq=2)
    store.begin_transfer(source.summary())
    store.install(TreeNode(b"\x00", (), ()))
    assert store.finish_transfer()
    assert content(store) == ({}, {})


@pytest.mark.rule("R23")
@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.application.get(b"key-1"),
        lambda store: list(store.application.range()),
        lambda store: list(store.sessions.range()),
        lambda store: store.begin_batch(store.seq + 1, store.time),
        lambda store: store.flush(),
        lambda store: store.summary(),
        lambda store: store.pin(),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_an_incomplete_state_is_not_used(
    use: Callable[[StateStore], object], restarted: bool
) -> None:
    disk = MemoryDatabase(STATE_TABLES)
    store = StateStore(disk)
    store.begin_batch(1, 10)
    store.application.put(b"key-1", b"v")
    target = state_of(many(50), seq=9).summary()
    store.begin_transfer(target)
    if restarted:
        disk.crash()
        store = StateStore(disk)
    assert store.transfer_target == target
    assert (store.seq, store.time) == (0, 0)
    with pytest.raises(StateIncomplete):
        use(store)
    with pytest.raises(RuntimeError, match="no batch is open"):
        store.application.put(b"key-1", b"v")


@pytest.mark.rule("R23")
def test_a_transfer_goes_on_after_a_crash_at_every_install() -> None:
    source = state_of(many(400), many(100), seq=5)
    pinned = source.pin()
    disk = MemoryDatabase(STATE_TABLES)
    store = StateStore(disk)
    store.begin_transfer(source.summary())
    for path in every_bucket(pinned):
        assert not store.finish_transfer()
        store.install(pinned.node(path))
        disk.crash()
        store = StateStore(disk)
        assert store.transfer_target == source.summary()
    assert fetch(store, pinned) == []
    assert store.finish_transfer()
    disk.crash()
    assert content(StateStore(disk)) == (many(400), many(100))
    assert StateStore(disk).summary() == source.summary()


def every_bucket(pinned: PinnedState) -> list[TreePath]:
    found, paths = [], [b"\x00", b"\x01"]
    while paths:
        node = pinned.node(paths.pop())
        if node.children:
            paths += [node.path + bytes([nibble]) for nibble in range(16)]
        elif node.entries:
            found.append(node.path)
    return found


def test_several_buckets_are_installed_at_once() -> None:
    source = state_of(many(400), many(100), seq=5)
    pinned = source.pin()
    store = state_of(many(300, b"old"), many(10))
    store.begin_transfer(source.summary())
    buckets = every_bucket(pinned)
    assert len({path[0] for path in buckets}) == 2
    store.install(*map(pinned.node, buckets))
    assert store.finish_transfer()
    assert content(store) == (many(400), many(100))


def test_a_wrong_bucket_is_found_out_and_fetched_again() -> None:
    source = state_of(many(400), seq=5)
    pinned = source.pin()
    store = state_of({})
    store.begin_transfer(source.summary())
    fetch(store, pinned)
    node = pinned.node(every_bucket(pinned)[0])
    store.install(TreeNode(node.path, (), node.entries[1:]))
    assert not store.finish_transfer()
    assert fetch(store, pinned)[-1] == node.path
    assert store.finish_transfer()


def test_a_newer_target_replaces_the_first() -> None:
    older, newer = state_of(many(50), seq=5), state_of(many(60), seq=6)
    store = state_of({})
    store.begin_transfer(older.summary())
    fetch(store, older.pin())
    store.begin_transfer(newer.summary())
    assert not store.finish_transfer()
    fetch(store, newer.pin())
    assert store.finish_transfer()
    assert store.summary() == newer.summary()


@pytest.mark.rule("R22")
def test_a_replica_can_repair_its_own_state_at_the_same_sequence_number() -> None:
    source = state_of(many(400), seq=5)
    store = state_of(many(400) | {b"key-3": b"wrong"}, seq=5)
    store.begin_transfer(source.summary())
    fetch(store, source.pin())
    assert store.finish_transfer()
    assert content(store) == (many(400), {})


def test_only_buckets_are_installed_and_only_during_a_transfer() -> None:
    source = state_of(many(400), seq=5)
    inner = source.pin().node(b"\x00")
    store = state_of({})
    for call in (
        store.differing_roots,
        store.finish_transfer,
        lambda: store.diff(inner),
        lambda: store.install(TreeNode(b"\x00", (), ())),
    ):
        with pytest.raises(RuntimeError, match="no state is being fetched"):
            call()
    store.begin_transfer(source.summary())
    with pytest.raises(ValueError, match="inner node"):
        store.install(inner)


def test_a_pinned_state_stays_while_the_store_moves_on() -> None:
    store = state_of(many(100), many(3))
    pinned = store.pin()
    before = {path: pinned.node(path) for path in every_bucket(pinned)}
    store.begin_batch(2, 20)
    for key in many(200):
        store.application.put(key, b"new")
    store.flush()
    assert pinned.summary == StateSummary(1, 10, *roots(pinned))
    assert {path: pinned.node(path) for path in every_bucket(pinned)} == before
    assert all(pinned.size(path) == size_of(node) for path, node in before.items())
    pinned.close()
    pinned.close()
    with pytest.raises(ValueError, match="not a path"):
        pinned.node(b"\x02")


def roots(pinned: PinnedState) -> list[bytes]:
    return [node_digest(pinned.node(path)) for path in (b"\x00", b"\x01")]


def size_of(node: TreeNode) -> int:
    return sum(len(key) + len(value) for key, value in node.entries)


def test_what_was_executed_but_not_flushed_is_not_pinned() -> None:
    store = state_of(many(3))
    store.begin_batch(2, 20)
    store.application.put(b"key-0", b"new")
    pinned = store.pin()
    assert pinned.summary.seq == 1
    assert (b"key-0", b"v") in pinned.node(b"\x00").entries
