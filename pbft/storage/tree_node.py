"""The digests of the state's Merkle trees: pure functions of what a node says.

A key's place is SHA-256(key), taken nibble by nibble from the root. A subtree that is small enough
is one bucket: its digest covers its entries in order of their keys. A larger one is an inner node:
its digest covers those of its 16 children. Both cover the path too, so that no node can stand for
one elsewhere; an empty subtree is 32 zero bytes wherever it is.

Digests are SHA-256 over a framed domain, a key or path behind its length in 2 bytes, and the rest:
`crypto.digests`, which does it for any number of pieces, takes twice as long, and every changed
entry needs one.
"""

from hashlib import sha256

from crypto.digests import DIGEST_BYTES, framed
from pbft.apps.state_machine import MAX_KEY_BYTES
from pbft.messages import TREE_FANOUT, TreeNode
from pbft.storage.database import MAX_RECORD_KEY_BYTES

APPLICATION, SESSIONS = 0, 1
BUCKET_ENTRIES = 64
BUCKET_BYTES = 512 * 1024
EMPTY_DIGEST = bytes(DIGEST_BYTES)
MAX_DEPTH = 2 * DIGEST_BYTES

Joined = bytes | bytearray
"""Digests, one after the other."""

_NIBBLES = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


def _prefixes(domain: bytes) -> list[bytes]:
    """What comes before a record's key in a digest of this domain, by the length of the key."""
    lengths = range(MAX_RECORD_KEY_BYTES + 1)
    return [framed(domain) + length.to_bytes(2, "big") for length in lengths]


_ENTRY = _prefixes(b"pbft/1 tree entry")
_BUCKET = _prefixes(b"pbft/1 tree bucket")
_INNER = _prefixes(b"pbft/1 tree node")


class MalformedNode(Exception):
    """A tree node contradicts itself; the text says how in a few words."""


def is_bucket(count: int, size: int) -> bool:
    """Whether a subtree of `count` entries with `size` bytes of keys and values is one bucket.

    Bounding the bytes bounds what has to be sent in one piece; a single entry cannot be split.
    """
    return count <= 1 or (count <= BUCKET_ENTRIES and size <= BUCKET_BYTES)


def place_of(key: bytes) -> bytes:
    """Where `key` belongs: the 64 branches (0..15) from the root of its tree on."""
    return sha256(key).hexdigest().encode().translate(_NIBBLES)


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
    return sha256(_ENTRY[len(key)] + key + value).digest()


def bucket_digest(path: bytes, entries: Joined) -> bytes:
    """The digest of a bucket with these entry digests, joined in order of their keys."""
    return sha256(_BUCKET[len(path)] + path + entries).digest() if entries else EMPTY_DIGEST


def inner_digest(path: bytes, children: Joined) -> bytes:
    """The digest of an inner node with these 16 child digests, joined."""
    return sha256(_INNER[len(path)] + path + children).digest()


def node_digest(node: TreeNode) -> bytes:
    """What the parent of `node`, or the checkpoint, must say of it. Raises MalformedNode."""
    try:
        check_path(node.path)
    except ValueError as error:
        raise MalformedNode(str(error)) from None
    if node.children:
        _check_inner(node)
        return inner_digest(node.path, b"".join(node.children))
    _check_bucket(node)
    return bucket_digest(node.path, b"".join(entry_digest(*entry) for entry in node.entries))


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
        if key <= before or not place_of(key).startswith(node.path[1:]):
            raise MalformedNode("an entry out of place")
        before = key
