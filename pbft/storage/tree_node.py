"""The digests of the state's Merkle trees: pure functions of what a node says.

A key's place follows from SHA-256(key), taken nibble by nibble from the root. A subtree that is
small enough is one bucket: its digest covers its entries in order of their keys' hashes. A larger
one is an inner node: its digest covers those of its 16 children. Both cover the path too, so that
no node can stand for one elsewhere; an empty subtree is 32 zero bytes wherever it is.
"""

from collections.abc import Iterable
from hashlib import sha256

from crypto.digests import DIGEST_BYTES, digest
from pbft.apps.state_machine import MAX_KEY_BYTES
from pbft.messages import TREE_FANOUT, TreeNode

APPLICATION, SESSIONS = 0, 1
BUCKET_ENTRIES = 32
BUCKET_BYTES = 512 * 1024
EMPTY_DIGEST = bytes(DIGEST_BYTES)
MAX_DEPTH = 2 * DIGEST_BYTES

_NIBBLES = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


class MalformedNode(Exception):
    """A tree node contradicts itself; the text says how in a few words."""


def is_bucket(count: int, size: int) -> bool:
    """Whether a subtree of `count` entries with `size` bytes of keys and values is one bucket.

    Bounding the bytes bounds what has to be sent in one piece; a single entry cannot be split.
    """
    return count <= 1 or (count <= BUCKET_ENTRIES and size <= BUCKET_BYTES)


def key_hash(key: bytes) -> bytes:
    """Where `key` belongs (32 bytes)."""
    return sha256(key).digest()


def nibble(hashed: bytes, depth: int) -> int:
    """The branch (0..15) that a key's hash takes at an inner node of that depth (the root: 0)."""
    byte = hashed[depth >> 1]
    return byte & 15 if depth & 1 else byte >> 4


def is_below(hashed: bytes, path: bytes) -> bool:
    """Whether a key with this hash belongs below `path` (tree number, then nibbles)."""
    return hashed.hex().encode().translate(_NIBBLES).startswith(path[1:])


def check_path(path: bytes) -> None:
    """Raises ValueError unless `path` is a tree's number (0 or 1) and at most 64 nibbles."""
    if not 1 <= len(path) <= 1 + MAX_DEPTH or path[0] > SESSIONS or max(path[1:], default=0) > 15:
        raise ValueError("not a path of the state trees")


def content_bytes(node: TreeNode) -> int:
    """The bytes of digests, or of keys and values, in `node`."""
    entries = sum(len(key) + len(value) for key, value in node.entries)
    return DIGEST_BYTES * len(node.children) + entries


def entry_digest(key: bytes, value: bytes) -> bytes:
    """The leaf of one entry."""
    return digest(b"pbft/1 tree entry", key, value)


def bucket_digest(path: bytes, entries: Iterable[bytes]) -> bytes:
    """The digest of a bucket with these entry digests, which are in order of their keys' hashes."""
    joined = b"".join(entries)
    return digest(b"pbft/1 tree bucket", path, joined) if joined else EMPTY_DIGEST


def inner_digest(path: bytes, children: Iterable[bytes]) -> bytes:
    """The digest of an inner node with these 16 child digests."""
    return digest(b"pbft/1 tree node", path, b"".join(children))


def node_digest(node: TreeNode) -> bytes:
    """What the parent of `node`, or the checkpoint, must say of it. Raises MalformedNode."""
    try:
        check_path(node.path)
    except ValueError as error:
        raise MalformedNode(str(error)) from None
    if node.children:
        _check_inner(node)
        return inner_digest(node.path, node.children)
    _check_bucket(node)
    return bucket_digest(node.path, (entry_digest(key, value) for key, value in node.entries))


def _check_inner(node: TreeNode) -> None:
    if len(node.children) != TREE_FANOUT:
        raise MalformedNode("an inner node has 16 children")
    if node.entries:
        raise MalformedNode("a node has children or entries, not both")


def _check_bucket(node: TreeNode) -> None:
    if len(node.entries) > BUCKET_ENTRIES:
        raise MalformedNode("too many entries in a bucket")
    before = b""
    for key, _ in node.entries:
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise MalformedNode("a key of the wrong length")
        hashed = key_hash(key)
        if hashed <= before or not is_below(hashed, node.path):
            raise MalformedNode("an entry out of place")
        before = hashed
