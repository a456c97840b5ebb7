"""Binary Merkle trees: one signed root for many leaves, a short path for each.

Leaves, inner nodes and places without a leaf are hashed under different prefixes (RFC 6962, 2.1,
has the first two), so no node passes for a leaf. The tree is complete: leaves are followed by empty
places up to the next power of two. So a path's length and the leaf's index alone say which way to
go, and because nothing hashes to an empty place, a root names one list of leaves, length included.
"""

from collections.abc import Sequence
from hashlib import sha256

MAX_LEAVES = 4096
MAX_PATH = 12
DIGEST_BYTES = 32

_LEAF = b"\x00"
_NODE = b"\x01"
_EMPTY = b"\x02"


def _empty_subtrees() -> tuple[bytes, ...]:
    roots = [sha256(_EMPTY).digest()]
    for _ in range(MAX_PATH):
        roots.append(sha256(_NODE + roots[-1] + roots[-1]).digest())
    return tuple(roots)


_EMPTY_SUBTREES = _empty_subtrees()


class MerkleTree:
    """The tree over 1..4096 leaves, kept whole, so that paths are looked up."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Raises ValueError for no leaves, or more than 4096."""
        if not 1 <= len(leaves) <= MAX_LEAVES:
            raise ValueError(f"a tree has 1..{MAX_LEAVES} leaves, not {len(leaves)}")
        hash_ = sha256
        level = [hash_(_LEAF + leaf).digest() for leaf in leaves]
        self._leaf_count = len(level)
        self._levels = [level]
        while len(level) > 1:
            if len(level) % 2:
                level.append(_EMPTY_SUBTREES[len(self._levels) - 1])
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [hash_(_NODE + left + right).digest() for left, right in pairs]
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """The digest (32 bytes) that names all leaves and their order."""
        return self._levels[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """The siblings from leaf `index` up to the root (0..12 digests). Raises IndexError."""
        if not 0 <= index < self._leaf_count:
            raise IndexError(f"no leaf {index} among {self._leaf_count}")
        return tuple(level[(index >> depth) ^ 1] for depth, level in enumerate(self._levels[:-1]))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root (32 bytes) over 1..4096 leaves. Raises ValueError for another number of them."""
    return MerkleTree(leaves).root


def root_from_path(leaf: bytes, index: int, path: Sequence[bytes]) -> bytes:
    """The root of the tree in which `path` leads from `leaf`, at `index`, to the top.

    Raises ValueError for a path that no tree has: too long, too short for `index`, not of digests.
    """
    if len(path) > MAX_PATH or not 0 <= index < 1 << len(path):
        raise ValueError("the path does not fit the index")
    node = sha256(_LEAF + leaf).digest()
    for sibling in path:
        if len(sibling) != DIGEST_BYTES:
            raise ValueError("the path holds something that is not a digest")
        pair = sibling + node if index & 1 else node + sibling
        node = sha256(_NODE + pair).digest()
        index >>= 1
    return node
