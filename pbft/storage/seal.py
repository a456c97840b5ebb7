"""The checksum that every record carries: it binds a value to its table and its key (R41).

XXH3 (64 bits) is no cryptographic hash, and need not be: who can write to the disk could put in any
checksum. It finds what a failing disk does, and costs a twentieth of one.
"""

import struct

from xxhash import xxh3_64_digest

from pbft.storage.database import MAX_RECORD_KEY_BYTES, CorruptRecord

CHECKSUM_BYTES = 8


class Seal:
    """Seals and opens the records of the table `name`."""

    __slots__ = ("_prefixes", "name")

    def __init__(self, name: str) -> None:
        encoded = name.encode()
        self.name = name
        self._prefixes = [
            struct.pack(">HH", len(encoded), length) + encoded
            for length in range(MAX_RECORD_KEY_BYTES + 1)
        ]

    def seal(self, key: bytes, value: bytes) -> bytes:
        """What is stored for `value` under `key`."""
        return xxh3_64_digest(self._prefixes[len(key)] + key + value) + value

    def unseal(self, key: bytes, stored: bytes) -> bytes:
        """The value inside `stored`. Raises CorruptRecord."""
        value = stored[CHECKSUM_BYTES:]
        if self.seal(key, value) != stored:
            raise CorruptRecord(f"corrupt record in table {self.name!r} under key {key.hex()}")
        return value
