"""Does a state's Merkle tree hold what the table beside it holds? All of it, in one pass over each.

Digests of a tree's nodes are computed again from the leaves up to the root. That the table has the
same entries is seen by count and by the sum of their digests, which needs no memory: a record that
was lost, altered or put in changes it.
"""

from collections.abc import Iterable, Iterator

import msgspec

from crypto.digests import DIGEST_BYTES
from pbft.messages import TREE_FANOUT
from pbft.storage.database import CorruptRecord
from pbft.storage.tree_columns import Bucket, Inner, parted
from pbft.storage.tree_node import (
    EMPTY_DIGEST,
    bucket_digest,
    entry_digest,
    inner_digest,
)

_MODULUS = 1 << 256
_decoder = msgspec.msgpack.Decoder(Bucket | Inner)

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
        node = stored_node(path, stored)
        digest = node_digest_of(path, node)
        if path == root_path:
            root = digest
        elif wanted.pop(path, None) != digest:
            raise CorruptRecord(f"the state's tree is not consistent at {path.hex()}")
        if isinstance(node, Bucket):
            for _, digest in contents(node):
                entries.add(digest)
        else:
            children = ((path + bytes([i]), child) for i, child in enumerate(parted(node.digests)))
            wanted.update((below, child) for below, child in children if child != EMPTY_DIGEST)
    if wanted:
        raise CorruptRecord(f"the state's tree has lost its node {min(wanted).hex()}")
    return root, entries


def stored_node(path: bytes, stored: bytes) -> Bucket | Inner:
    """A tree's record. Raises CorruptRecord."""
    try:
        node: Bucket | Inner = _decoder.decode(stored)
    except msgspec.DecodeError:
        raise CorruptRecord(f"the state's tree has no node at {path.hex()}") from None
    children = TREE_FANOUT if isinstance(node, Inner) else len(node.keys)
    if len(node.digests) != DIGEST_BYTES * children:
        raise CorruptRecord(f"the state's tree is not consistent at {path.hex()}")
    return node


def contents(bucket: Bucket) -> Iterator[tuple[bytes, bytes]]:
    """Key and digest of each entry."""
    return zip(bucket.keys, parted(bucket.digests), strict=True)


def node_digest_of(path: bytes, node: Bucket | Inner) -> bytes:
    """What is above must say of a node."""
    if isinstance(node, Inner):
        return inner_digest(path, node.digests)
    return bucket_digest(path, node.digests)
