"""Domain-separated SHA-256.

Every digest in the project is taken over ``domain ‖ parts`` in which each piece is preceded by its
length, so that no two different lists of pieces, and no two domains, ever hash the same bytes.
"""

from hashlib import sha256

DIGEST_BYTES = 32


def framed(piece: bytes) -> bytes:
    """`piece` after its length (8 bytes, big-endian): as a domain, the beginning of its digests."""
    return len(piece).to_bytes(8, "big") + piece


def digest(domain: bytes, *parts: bytes) -> bytes:
    """SHA-256 (32 bytes) over `domain` and `parts`, each after its length (8 bytes, big-endian)."""
    return sha256(framed(domain) + b"".join(map(framed, parts))).digest()
