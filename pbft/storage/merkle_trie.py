"""An authenticated tree over one table, kept up to date on disk beside it.

Its shape depends only on the table's content (see `tree_node`), so replicas that hold the same
entries hold the same tree, whatever happened before. Only nodes on the way to changed entries are
read and written. The digest of the subtree below *any* path is defined by the entries below it,
also where this tree has no node there; so trees of different shapes can be compared node by node.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pbft.codec import encode
from pbft.messages import TREE_FANOUT, TreeNode, TreePath
from pbft.storage.database import CorruptRecord, Reader, Transaction
from pbft.storage.tree_columns import NOTHING, Bucket, branches, changes_of, merged
from pbft.storage.tree_node import (
    EMPTY_DIGEST,
    bucket_digest,
    check_path,
    inner_digest,
    is_bucket,
)

INNER_BYTES = TREE_FANOUT * len(EMPTY_DIGEST)


class Inner(Struct, array_like=True, tag=1):
    """A stored inner node: entries, bytes and digest of each of its 16 children."""

    counts: list[int]
    sizes: list[int]
    digests: list[bytes]

    def set_child(self, branch: int, child: "Totals") -> None:
        """Note what is below one branch."""
        self.counts[branch], self.sizes[branch], self.digests[branch] = child


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
        return bucket_digest(path, found.digests)

    def node(self, reader: Reader, path: TreePath) -> TreeNode:
        """The subtree below `path` as a node: a bucket, with its values, where it is small enough.

        Raises ValueError for what is no path here, CorruptRecord, StorageFailure.
        """
        found = self._subtree(reader, path)
        if isinstance(found, Inner):
            return TreeNode(path, tuple(found.digests), ())
        return TreeNode(path, (), tuple((key, self._value(reader, key)) for key in found.keys))

    def size_at(self, reader: Reader, path: TreePath) -> int:
        """The bytes of digests, or of keys and values, in the node below `path`."""
        found = self._subtree(reader, path)
        return INNER_BYTES if isinstance(found, Inner) else sum(found.sizes)

    def extent(self, reader: Reader) -> tuple[int, int]:
        """How many entries the table has, and the bytes of their keys and values."""
        found = self._subtree(reader, self.path)
        if isinstance(found, Inner):
            return sum(found.counts), sum(found.sizes)
        return len(found.keys), sum(found.sizes)

    def keys_below(self, reader: Reader, path: TreePath) -> Iterator[bytes]:
        """The keys of all entries below `path`; lazily."""
        found = self._subtree(reader, path)
        buckets = self._buckets(reader, path) if isinstance(found, Inner) else iter((found,))
        for bucket in buckets:
            yield from bucket.keys

    def update(self, transaction: Transaction, changed: Mapping[bytes, bytes | None]) -> None:
        """Follow a change of the table: new values by their keys, None for a deleted key."""
        if changed:
            self._apply(transaction, self.path, changes_of(changed))

    # --- reading -----------------------------------------------------------------------------

    def _subtree(self, reader: Reader, path: bytes) -> Inner | Bucket:
        """The inner node at `path`, or the few entries below it."""
        check_path(path)
        if path[:1] != self.path:
            raise ValueError("a path of the other tree")
        for length in range(len(path), 0, -1):
            node = self._load(reader, path[:length])
            if isinstance(node, Inner):
                return node if length == len(path) else NOTHING
            if node is not None:
                return node.below(path)
        return NOTHING

    def _load(self, reader: Reader, path: bytes) -> Bucket | Inner | None:
        stored = reader.get(self._nodes, path)
        return None if stored is None else self._decode(path, stored)

    def _decode(self, path: bytes, stored: bytes) -> Bucket | Inner:
        try:
            node: Bucket | Inner = _decoder.decode(stored)
        except msgspec.DecodeError:
            raise CorruptRecord(f"no tree node in {self._nodes!r} under {path.hex()}") from None
        return node

    def _buckets(self, reader: Reader, path: bytes) -> Iterator[Bucket]:
        for at, stored in self._scan(reader, path):
            node = self._decode(at, stored)
            if isinstance(node, Bucket):
                yield node

    def _scan(self, reader: Reader, path: bytes) -> Iterator[tuple[bytes, bytes]]:
        return reader.scan(self._nodes, path, path + bytes([TREE_FANOUT]))

    def _value(self, reader: Reader, key: bytes) -> bytes:
        value = reader.get(self.entries, key)
        if value is None:
            raise CorruptRecord(f"table {self.entries!r} has lost its key {key.hex()}")
        return value

    # --- writing -----------------------------------------------------------------------------

    def _apply(self, transaction: Transaction, path: bytes, changes: Bucket) -> Totals:
        """Change the entries below `path`, where all of `changes` belong."""
        node = self._load(transaction, path)
        if isinstance(node, Inner):
            return self._apply_inner(transaction, path, node, changes)
        before = NOTHING if node is None else node
        after = merged(before, changes)
        if after.digests == before.digests:
            return _totals(path, before)
        if not after.hashes:
            transaction.delete(self._nodes, path)
        return self._place(transaction, path, after)

    def _place(self, transaction: Transaction, path: bytes, entries: Bucket) -> Totals:
        """Write the subtree of these entries where there was a bucket or nothing."""
        if not is_bucket(len(entries.hashes), sum(entries.sizes)):
            inner = Inner([0] * TREE_FANOUT, [0] * TREE_FANOUT, [EMPTY_DIGEST] * TREE_FANOUT)
            for branch, part in branches(path, entries):
                inner.set_child(branch, self._place(transaction, path + bytes([branch]), part))
            return self._store_inner(transaction, path, inner)
        if entries.hashes:
            transaction.put(self._nodes, path, encode(entries))
        return _totals(path, entries)

    def _apply_inner(
        self, transaction: Transaction, path: bytes, inner: Inner, changes: Bucket
    ) -> Totals:
        before = list(inner.digests)
        for branch, part in branches(path, changes):
            below = path + bytes([branch])
            if inner.counts[branch]:
                child = self._apply(transaction, below, part)
            else:
                child = self._place(transaction, below, merged(NOTHING, part))
            inner.set_child(branch, child)
        if is_bucket(sum(inner.counts), sum(inner.sizes)):
            return self._merge(transaction, path)
        if inner.digests == before:
            return _inner_totals(path, inner)
        return self._store_inner(transaction, path, inner)

    def _merge(self, transaction: Transaction, path: bytes) -> Totals:
        """Turn the inner node at `path`, whose children are all buckets by now, into a bucket."""
        entries = Bucket([], [], [], [])
        for at, stored in list(self._scan(transaction, path)):
            transaction.delete(self._nodes, at)
            node = self._decode(at, stored)
            if isinstance(node, Bucket):
                entries.hashes += node.hashes
                entries.keys += node.keys
                entries.sizes += node.sizes
                entries.digests += node.digests
        return self._place(transaction, path, entries)

    def _store_inner(self, transaction: Transaction, path: bytes, inner: Inner) -> Totals:
        transaction.put(self._nodes, path, encode(inner))
        return _inner_totals(path, inner)


def _totals(path: bytes, entries: Bucket) -> Totals:
    if not entries.hashes:
        return _EMPTY
    return Totals(len(entries.hashes), sum(entries.sizes), bucket_digest(path, entries.digests))


def _inner_totals(path: bytes, inner: Inner) -> Totals:
    return Totals(sum(inner.counts), sum(inner.sizes), inner_digest(path, inner.digests))
