"""An authenticated tree over one table, kept up to date on disk beside it.

Its shape depends only on the table's content (see `tree_node`), so replicas that hold the same
entries hold the same tree, whatever happened before. Only nodes on the way to changed entries are
read and written. The digest of the subtree below *any* path is defined by the entries below it,
also where this tree has no node there; so trees of different shapes can be compared node by node.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pbft.codec import encode
from pbft.messages import TREE_FANOUT, TreeNode, TreePath
from pbft.storage.database import CorruptRecord, Reader, Transaction
from pbft.storage.tree_node import (
    EMPTY_DIGEST,
    bucket_digest,
    check_path,
    entry_digest,
    inner_digest,
    is_below,
    is_bucket,
    key_hash,
    nibble,
)

INNER_BYTES = TREE_FANOUT * len(EMPTY_DIGEST)


class Entry(NamedTuple):
    """What the tree knows of one entry; `size` is the bytes of key and value."""

    digest: bytes
    key: bytes
    size: int


Entries = dict[bytes, Entry]
"""Entries by the hash of their keys."""
Change = tuple[bytes, Entry | None]
"""A key's hash and its new entry, or None for a deleted one."""


class Bucket(Struct, array_like=True, tag=0):
    """A stored bucket, in order of the hashes."""

    entries: Entries


class Inner(Struct, array_like=True, tag=1):
    """A stored inner node: entries, bytes and digest of each of its 16 children."""

    counts: list[int]
    sizes: list[int]
    digests: list[bytes]


class Totals(NamedTuple):
    """What a parent keeps of a subtree."""

    entries: int
    size: int
    digest: bytes


_EMPTY = Totals(0, 0, EMPTY_DIGEST)
_decoder = msgspec.msgpack.Decoder(Bucket | Inner)


class MerkleTrie:
    """The tree with this `number` over the table `entries`; its nodes are in the table `nodes`."""

    def __init__(self, number: int, entries: str, nodes: str) -> None:
        self.path = bytes([number])
        self.entries = entries
        self._nodes = nodes

    def root(self, reader: Reader) -> bytes:
        """The digest of the whole table's content (32 bytes)."""
        return self.digest_at(reader, self.path)

    def digest_at(self, reader: Reader, path: TreePath) -> bytes:
        """The digest of the entries below `path`. Raises ValueError for what is no path here."""
        found = self._subtree(reader, path)
        if isinstance(found, Inner):
            return inner_digest(path, found.digests)
        return bucket_digest(path, (entry.digest for entry in found.values()))

    def node(self, reader: Reader, path: TreePath) -> TreeNode:
        """The subtree below `path` as a node: a bucket, with its values, where it is small enough.

        Raises ValueError for what is no path here, CorruptRecord, StorageFailure.
        """
        found = self._subtree(reader, path)
        if isinstance(found, Inner):
            return TreeNode(path, tuple(found.digests), ())
        pairs = tuple((entry.key, self._value(reader, entry.key)) for entry in found.values())
        return TreeNode(path, (), pairs)

    def size_at(self, reader: Reader, path: TreePath) -> int:
        """The bytes of digests, or of keys and values, in the node below `path`."""
        found = self._subtree(reader, path)
        if isinstance(found, Inner):
            return INNER_BYTES
        return sum(entry.size for entry in found.values())

    def extent(self, reader: Reader) -> tuple[int, int]:
        """How many entries the table has, and the bytes of their keys and values."""
        found = self._subtree(reader, self.path)
        if isinstance(found, Inner):
            return sum(found.counts), sum(found.sizes)
        return len(found), sum(entry.size for entry in found.values())

    def keys_below(self, reader: Reader, path: TreePath) -> Iterator[bytes]:
        """The keys of all entries below `path`; lazily."""
        found = self._subtree(reader, path)
        buckets = self._buckets(reader, path) if isinstance(found, Inner) else iter((found,))
        for entries in buckets:
            for entry in entries.values():
                yield entry.key

    def update(self, transaction: Transaction, changed: Mapping[bytes, bytes | None]) -> None:
        """Follow a change of the table: new values by their keys, None for a deleted key."""
        changes = sorted((key_hash(key), _entry(key, value)) for key, value in changed.items())
        if changes:
            self._apply(transaction, self.path, changes)

    # --- reading -----------------------------------------------------------------------------

    def _subtree(self, reader: Reader, path: bytes) -> Inner | Entries:
        """The inner node at `path`, or the few entries below it."""
        check_path(path)
        if path[:1] != self.path:
            raise ValueError("a path of the other tree")
        for length in range(len(path), 0, -1):
            node = self._load(reader, path[:length])
            if isinstance(node, Inner):
                return node if length == len(path) else {}
            if node is not None:
                return {at: entry for at, entry in node.entries.items() if is_below(at, path)}
        return {}

    def _load(self, reader: Reader, path: bytes) -> Bucket | Inner | None:
        stored = reader.get(self._nodes, path)
        return None if stored is None else self._decode(path, stored)

    def _decode(self, path: bytes, stored: bytes) -> Bucket | Inner:
        try:
            node: Bucket | Inner = _decoder.decode(stored)
        except msgspec.DecodeError:
            raise CorruptRecord(f"no tree node in {self._nodes!r} under {path.hex()}") from None
        return node

    def _buckets(self, reader: Reader, path: bytes) -> Iterator[Entries]:
        for at, stored in self._scan(reader, path):
            node = self._decode(at, stored)
            if isinstance(node, Bucket):
                yield node.entries

    def _scan(self, reader: Reader, path: bytes) -> Iterator[tuple[bytes, bytes]]:
        return reader.scan(self._nodes, path, path + bytes([TREE_FANOUT]))

    def _value(self, reader: Reader, key: bytes) -> bytes:
        value = reader.get(self.entries, key)
        if value is None:
            raise CorruptRecord(f"table {self.entries!r} has lost its key {key.hex()}")
        return value

    # --- writing -----------------------------------------------------------------------------

    def _apply(self, transaction: Transaction, path: bytes, changes: Sequence[Change]) -> Totals:
        """Change the entries below `path`; `changes` are sorted by hash and all belong there."""
        node = self._load(transaction, path)
        if isinstance(node, Inner):
            return self._apply_inner(transaction, path, node, changes)
        before = node.entries if node is not None else {}
        after = _changed(before, changes)
        if after == before:
            return _totals(path, before)
        if not after:
            transaction.delete(self._nodes, path)
        return self._place(transaction, path, after)

    def _place(self, transaction: Transaction, path: bytes, entries: Entries) -> Totals:
        """Write the subtree of these entries where there was a bucket or nothing."""
        totals = _totals(path, entries)
        if not is_bucket(totals.entries, totals.size):
            inner = Inner([0] * TREE_FANOUT, [0] * TREE_FANOUT, [EMPTY_DIGEST] * TREE_FANOUT)
            for branch, group in groupby(entries.items(), _branch_at(path)):
                child = self._place(transaction, path + bytes([branch]), dict(group))
                _set_child(inner, branch, child)
            return self._store_inner(transaction, path, inner)
        if entries:
            transaction.put(self._nodes, path, encode(Bucket(entries)))
        return totals

    def _apply_inner(
        self, transaction: Transaction, path: bytes, inner: Inner, changes: Sequence[Change]
    ) -> Totals:
        before = list(inner.digests)
        for branch, group in groupby(changes, _branch_at(path)):
            child = self._apply_child(
                transaction, path + bytes([branch]), inner.counts[branch] == 0, list(group)
            )
            _set_child(inner, branch, child)
        if is_bucket(sum(inner.counts), sum(inner.sizes)):
            return self._merge(transaction, path)
        if inner.digests == before:
            return _inner_totals(path, inner)
        return self._store_inner(transaction, path, inner)

    def _apply_child(
        self, transaction: Transaction, path: bytes, empty: bool, changes: Sequence[Change]
    ) -> Totals:
        if empty:
            return self._place(transaction, path, _changed({}, changes))
        return self._apply(transaction, path, changes)

    def _merge(self, transaction: Transaction, path: bytes) -> Totals:
        """Turn the inner node at `path`, whose children are all buckets by now, into a bucket."""
        entries: Entries = {}
        for at, stored in list(self._scan(transaction, path)):
            transaction.delete(self._nodes, at)
            node = self._decode(at, stored)
            if isinstance(node, Bucket):
                entries.update(node.entries)
        return self._place(transaction, path, entries)

    def _store_inner(self, transaction: Transaction, path: bytes, inner: Inner) -> Totals:
        transaction.put(self._nodes, path, encode(inner))
        return _inner_totals(path, inner)


def _entry(key: bytes, value: bytes | None) -> Entry | None:
    if value is None:
        return None
    return Entry(entry_digest(key, value), key, len(key) + len(value))


def _branch_at(path: bytes) -> Callable[[tuple[bytes, object]], int]:
    depth = len(path) - 1
    return lambda item: nibble(item[0], depth)


def _changed(entries: Entries, changes: Sequence[Change]) -> Entries:
    after = dict(entries)
    for hashed, entry in changes:
        if entry is None:
            after.pop(hashed, None)
        else:
            after[hashed] = entry
    return dict(sorted(after.items()))


def _set_child(inner: Inner, branch: int, child: Totals) -> None:
    inner.counts[branch], inner.sizes[branch], inner.digests[branch] = child


def _totals(path: bytes, entries: Entries) -> Totals:
    if not entries:
        return _EMPTY
    digests = [entry.digest for entry in entries.values()]
    size = sum([entry.size for entry in entries.values()])
    return Totals(len(entries), size, bucket_digest(path, digests))


def _inner_totals(path: bytes, inner: Inner) -> Totals:
    return Totals(sum(inner.counts), sum(inner.sizes), inner_digest(path, inner.digests))
