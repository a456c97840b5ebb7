"""An authenticated tree over one table, kept up to date on disk beside it.

Its shape depends only on the table's content (see `tree_node`), so replicas that hold the same
entries hold the same tree, whatever happened before. Only nodes on the way to changed entries are
read and written. The digest of the subtree below *any* path is defined by the entries below it,
also where this tree has no node there; so trees of different shapes can be compared node by node.
"""

from collections.abc import Iterator, Mapping

from pbft.codec import encode
from pbft.messages import TREE_FANOUT, TreeNode, TreePath
from pbft.storage.database import CorruptRecord, Reader, Transaction
from pbft.storage.tree_columns import (
    Bucket,
    Change,
    Entry,
    Inner,
    Totals,
    branches,
    decode_node,
    in_order_of_place,
    parted,
)
from pbft.storage.tree_node import (
    BUCKET_ENTRIES,
    EMPTY_DIGEST,
    bucket_digest,
    check_path,
    inner_digest,
    is_bucket,
)

INNER_BYTES = TREE_FANOUT * len(EMPTY_DIGEST)


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
            return TreeNode(path, tuple(parted(found.digests)), ())
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
            self._apply(transaction, self.path, in_order_of_place(changed))

    # --- reading -----------------------------------------------------------------------------

    def _subtree(self, reader: Reader, path: bytes) -> Inner | Bucket:
        """The inner node at `path`, or the few entries below it."""
        check_path(path)
        if path[:1] != self.path:
            raise ValueError("a path of the other tree")
        for length in range(len(path), 0, -1):
            node = self._load(reader, path[:length])
            if isinstance(node, Inner):
                return node if length == len(path) else Bucket.empty()
            if node is not None:
                return node.below(path)
        return Bucket.empty()

    def _load(self, reader: Reader, path: bytes) -> Bucket | Inner | None:
        stored = reader.get(self._nodes, path)
        return None if stored is None else decode_node(path, stored)

    def _buckets(self, reader: Reader, path: bytes) -> Iterator[Bucket]:
        for at, stored in self._scan(reader, path):
            node = decode_node(at, stored)
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

    def _apply(self, transaction: Transaction, path: bytes, changes: list[Change]) -> Totals:
        """Change the entries below `path`, where all of `changes` belong."""
        node = self._load(transaction, path)
        if isinstance(node, Inner):
            return self._apply_inner(transaction, path, node, changes)
        return self._apply_bucket(transaction, path, node or Bucket.empty(), changes)

    def _apply_bucket(
        self, transaction: Transaction, path: bytes, bucket: Bucket, changes: list[Change]
    ) -> Totals:
        if len(changes) > BUCKET_ENTRIES:  # more than it can have: most are new
            inner = self._split(transaction, path, bucket)
            return self._apply_inner(transaction, path, inner, changes)
        before = bytes(bucket.digests)
        bucket.change(changes)
        if bucket.digests == before:
            return _bucket_totals(path, bucket)
        if not bucket.keys:
            transaction.delete(self._nodes, path)
        return self._place(transaction, path, bucket)

    def _place(self, transaction: Transaction, path: bytes, bucket: Bucket) -> Totals:
        """Write the subtree of these entries where there was a bucket or nothing."""
        if not is_bucket(len(bucket.keys), sum(bucket.sizes)):
            return self._store_inner(transaction, path, self._split(transaction, path, bucket))
        if bucket.keys:
            transaction.put(self._nodes, path, encode(bucket))
        return _bucket_totals(path, bucket)

    def _split(self, transaction: Transaction, path: bytes, bucket: Bucket) -> Inner:
        """Write the entries below the children of `path`, but not the inner node for these."""
        inner = Inner.empty()
        for branch, part in bucket.split(len(path) - 1).items():
            inner.set_child(branch, self._place(transaction, path + bytes([branch]), part))
        return inner

    def _apply_inner(
        self, transaction: Transaction, path: bytes, inner: Inner, changes: list[Change]
    ) -> Totals:
        before = bytes(inner.digests)
        for below, part in branches(path, changes):
            branch = below[-1]
            if inner.counts[branch]:
                child = self._apply(transaction, below, part)
            else:
                child = self._apply_bucket(transaction, below, Bucket.empty(), part)
            inner.set_child(branch, child)
        if is_bucket(sum(inner.counts), sum(inner.sizes)):
            return self._merge(transaction, path)
        if inner.digests == before:
            return _inner_totals(path, inner)
        return self._store_inner(transaction, path, inner)

    def _merge(self, transaction: Transaction, path: bytes) -> Totals:
        """Turn the inner node at `path`, whose children are all buckets by now, into a bucket."""
        entries: list[Entry] = []
        for at, stored in list(self._scan(transaction, path)):
            transaction.delete(self._nodes, at)
            node = decode_node(at, stored)
            if isinstance(node, Bucket) and at != path:
                entries += node.entries()
        return self._place(transaction, path, Bucket.of(sorted(entries)))

    def _store_inner(self, transaction: Transaction, path: bytes, inner: Inner) -> Totals:
        transaction.put(self._nodes, path, encode(inner))
        return _inner_totals(path, inner)


def _bucket_totals(path: bytes, bucket: Bucket) -> Totals:
    return Totals(len(bucket.keys), sum(bucket.sizes), bucket_digest(path, bucket.digests))


def _inner_totals(path: bytes, inner: Inner) -> Totals:
    return Totals(sum(inner.counts), sum(inner.sizes), inner_digest(path, inner.digests))
