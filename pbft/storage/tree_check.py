"""Does a state's Merkle tree hold what the table beside it holds? All of it, in one pass over each.

Digests of a tree's nodes are computed again from the leaves up to the root. That the table has the
same entries is seen by count and by the sum of their digests, which needs no memory: a record that
was lost, altered or put in changes it.
"""

from collections.abc import Iterable

from pbft.storage.database import CorruptRecord
from pbft.storage.tree_columns import Bucket, Inner, decode_node, parted
from pbft.storage.tree_node import (
    EMPTY_DIGEST,
    bucket_digest,
    entry_digest,
    inner_digest,
)

_MODULUS = 1 << 256

Records = Iterable[tuple[bytes, bytes]]


class EntrySum:
    """A multiset of entries, by count and sum of digests."""

    def __init__(self) -> None:
        self.count = 0
        self._total = 0

    def add(self, digest: bytes) -> None:
        """One more entry with this digest."""
        self.count += 1
        self._total += int.from_bytes(digest, "big")

    def agrees(self, other: "EntrySum") -> bool:
        """Whether both hold the same."""
        same = (self._total - other._total) % _MODULUS == 0
        return same and self.count == other.count


def sum_of_table(records: Records) -> EntrySum:
    """What the table itself holds."""
    entries = EntrySum()
    for key, value in records:
        entries.add(entry_digest(key, value))
    return entries


def check_tree(root_path: bytes, nodes: Records) -> tuple[bytes, EntrySum]:
    """The root of a tree, and what it says that the table holds. Raises CorruptRecord.

    `nodes` come in order of their paths: each before what lies below it.
    """
    entries, wanted, root = EntrySum(), dict[bytes, bytes](), EMPTY_DIGEST
    for path, stored in nodes:
        node = decode_node(path, stored)
        digest = node_digest_of(path, node)
        if path == root_path:
            root = digest
        elif wanted.pop(path, None) != digest:
            raise CorruptRecord(f"the state's tree is not consistent at {path.hex()}")
        if isinstance(node, Bucket):
            for _, _, digest in node.entries():
                entries.add(digest)
        else:
            children = ((path + bytes([i]), child) for i, child in enumerate(parted(node.digests)))
            wanted.update((below, child) for below, child in children if child != EMPTY_DIGEST)
    if wanted:
        raise CorruptRecord(f"the state's tree has lost its node {min(wanted).hex()}")
    return root, entries


def node_digest_of(path: bytes, node: Bucket | Inner) -> bytes:
    """What is above must say of a node."""
    if isinstance(node, Inner):
        return inner_digest(path, node.digests)
    return bucket_digest(path, node.digests)
