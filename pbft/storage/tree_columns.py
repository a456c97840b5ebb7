"""The entries of a state tree as columns: lists of hashes, keys, sizes and digests.

Updating the trees is most of what a checkpoint costs, and most of that is Python. Columns are
sliced, encoded and decoded as a whole: an object per entry took 1.4 times as long.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping

from msgspec import Struct

from pbft.storage.tree_node import entry_digest, is_below, key_hash, nibble

DELETED = b""
"""In place of a digest: the change is a deletion."""

_LAST = [bytes([byte]) + b"\xff" * 32 for byte in range(256)]


class Bucket(Struct, array_like=True, tag=0):
    """A stored bucket, or a set of changes: columns, in order of the keys' hashes."""

    hashes: list[bytes]
    keys: list[bytes]
    sizes: list[int]  # bytes of key and value
    digests: list[bytes]

    def part(self, low: int, high: int) -> "Bucket":
        """The entries from `low` on and before `high`."""
        return Bucket(
            self.hashes[low:high],
            self.keys[low:high],
            self.sizes[low:high],
            self.digests[low:high],
        )

    def below(self, path: bytes) -> "Bucket":
        """Those entries that belong below `path`, which begins with the bucket's own."""
        inside = [at for at, hashed in enumerate(self.hashes) if is_below(hashed, path)]
        return self.part(inside[0], inside[-1] + 1) if inside else NOTHING


NOTHING = Bucket([], [], [], [])


def changes_of(changed: Mapping[bytes, bytes | None]) -> Bucket:
    """New values by their keys, None for a deleted key, as columns."""
    ordered = sorted((key_hash(key), key, value) for key, value in changed.items())
    return Bucket(
        [hashed for hashed, _, _ in ordered],
        [key for _, key, _ in ordered],
        [0 if value is None else len(key) + len(value) for _, key, value in ordered],
        [DELETED if value is None else entry_digest(key, value) for _, key, value in ordered],
    )


def merged(before: Bucket, changes: Bucket) -> Bucket:
    """The entries after the changes; `before` stays as it is."""
    if not before.hashes and DELETED not in changes.digests:
        return changes
    after = before.part(0, len(before.hashes))
    hashes, keys, sizes, digests = after.hashes, after.keys, after.sizes, after.digests
    for hashed, key, size, digest in zip(
        changes.hashes, changes.keys, changes.sizes, changes.digests, strict=True
    ):
        at = bisect_left(hashes, hashed)
        known = at < len(hashes) and hashes[at] == hashed
        if digest == DELETED:
            if known:
                del hashes[at], keys[at], sizes[at], digests[at]
        elif known:
            sizes[at], digests[at] = size, digest
        else:
            hashes.insert(at, hashed)
            keys.insert(at, key)
            sizes.insert(at, size)
            digests.insert(at, digest)
    return after


def branches(path: bytes, entries: Bucket) -> Iterator[tuple[int, Bucket]]:
    """The entries below `path` by the branches that they take there."""
    depth, hashes = len(path) - 1, entries.hashes
    low, end = 0, len(hashes)
    while low < end:
        first = hashes[low]
        high = low + 1 if low + 1 == end else bisect_right(hashes, _last(first, depth), low)
        yield nibble(first, depth), entries if high - low == end else entries.part(low, high)
        low = high


def _last(hashed: bytes, depth: int) -> bytes:
    """No hash that takes the same branch at that depth is above this."""
    whole = depth >> 1
    byte = hashed[whole]
    return hashed[:whole] + _LAST[byte if depth & 1 else byte | 15]
