"""What the nodes of a state tree say of what is below them, in few pieces.

Updating the trees is most of what a checkpoint costs, and most of that is Python: a node whose
digests are one string of bytes is hashed, encoded and decoded as it is, and changed in place.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from crypto.digests import DIGEST_BYTES
from pbft.messages import TREE_FANOUT
from pbft.storage.database import CorruptRecord
from pbft.storage.tree_node import EMPTY_DIGEST, Joined, entry_digest, place_of

Change = tuple[bytes, tuple[bytes, bytes | None]]
"""The place of a key, the key, and its new value; None deletes it."""
Entry = tuple[bytes, int, bytes]
"""Key, bytes of key and value, digest."""


class Totals(NamedTuple):
    """What a parent keeps of a subtree."""

    entries: int
    size: int
    digest: bytes


class Bucket(Struct, array_like=True, tag=0):
    """A stored bucket: columns, in order of the keys."""

    keys: list[bytes]
    sizes: list[int]  # bytes of key and value
    digests: bytearray  # joined

    @classmethod
    def empty(cls) -> "Bucket":
        """A new one."""
        return cls([], [], bytearray())

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Bucket":
        """The bucket with these entries, which are in order."""
        bucket = cls.empty()
        for key, size, digest in entries:
            bucket.keys.append(key)
            bucket.sizes.append(size)
            bucket.digests += digest
        return bucket

    def entries(self) -> Iterator[Entry]:
        """Key, size and digest of each entry."""
        return zip(self.keys, self.sizes, parted(self.digests), strict=True)

    def change(self, changes: Iterable[Change]) -> None:
        """Give keys new values, or delete them."""
        keys, sizes, digests = self.keys, self.sizes, self.digests
        for _, (key, value) in changes:
            at = bisect_left(keys, key)
            known = at < len(keys) and keys[at] == key
            low, high = DIGEST_BYTES * at, DIGEST_BYTES * (at + known)
            if value is not None:
                digests[low:high] = entry_digest(key, value)
                if not known:
                    keys.insert(at, key)
                    sizes.insert(at, 0)
                sizes[at] = len(key) + len(value)
            elif known:
                del keys[at], sizes[at], digests[low:high]

    def below(self, path: bytes) -> "Bucket":
        """Those entries that belong below `path`, which begins with the bucket's own."""
        within = path[1:]
        return Bucket.of(entry for entry in self.entries() if place_of(entry[0]).startswith(within))

    def split(self, depth: int) -> dict[int, "Bucket"]:
        """The entries by the branches that they take at that depth (the root: 0)."""
        parts = defaultdict[int, list[Entry]](list)
        for entry in self.entries():
            parts[place_of(entry[0])[depth]].append(entry)
        return {branch: Bucket.of(entries) for branch, entries in parts.items()}


class Inner(Struct, array_like=True, tag=1):
    """A stored inner node: entries, bytes and digest of each of its 16 children."""

    counts: list[int]
    sizes: list[int]
    digests: bytearray

    @classmethod
    def empty(cls) -> "Inner":
        """A new one, without anything below it."""
        return cls([0] * TREE_FANOUT, [0] * TREE_FANOUT, bytearray(EMPTY_DIGEST * TREE_FANOUT))

    def child(self, branch: int) -> bytes:
        """The digest of what is below one branch."""
        return bytes(self.digests[DIGEST_BYTES * branch : DIGEST_BYTES * (branch + 1)])

    def set_child(self, branch: int, child: Totals) -> None:
        """Note what is below one branch."""
        self.counts[branch], self.sizes[branch], digest = child
        self.digests[DIGEST_BYTES * branch : DIGEST_BYTES * (branch + 1)] = digest


_decoder = msgspec.msgpack.Decoder(Bucket | Inner)


def decode_node(path: bytes, stored: bytes) -> Bucket | Inner:
    """The stored node of a tree at `path`. Raises CorruptRecord."""
    try:
        node: Bucket | Inner = _decoder.decode(stored)
    except msgspec.DecodeError:
        raise CorruptRecord(f"there is no tree node under {path.hex()}") from None
    columns = TREE_FANOUT if isinstance(node, Inner) else len(node.keys)
    if len(node.sizes) != columns or len(node.digests) != DIGEST_BYTES * columns:
        raise CorruptRecord(f"the tree node under {path.hex()} contradicts itself")
    return node


def in_order_of_place(changed: Mapping[bytes, bytes | None]) -> list[Change]:
    """New values by their keys, None for a deleted key, in the order in which the tree has them."""
    return sorted(zip(map(place_of, changed), changed.items(), strict=True))


def branches(path: bytes, changes: list[Change]) -> Iterator[tuple[bytes, list[Change]]]:
    """The changes below `path` by the children in which they belong; the paths of these."""
    tree, depth = path[:1], len(path)
    low, end = 0, len(changes)
    while low < end:
        within = changes[low][0][:depth]
        high = low + 1
        if high < end and changes[high][0].startswith(within):
            high = bisect_left(changes, (within + _ABOVE,), high + 1)
        yield tree + within, changes[low:high]
        low = high


_ABOVE = bytes([TREE_FANOUT])  # no branch is above this


def parted(digests: Joined) -> Iterator[bytes]:
    """Digests that were joined, one by one."""
    for at in range(0, len(digests), DIGEST_BYTES):
        yield bytes(digests[at : at + DIGEST_BYTES])
