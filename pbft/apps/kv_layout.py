"""How the key-value store lies in the ordered byte map.

A *stamp* is etcd's main and sub-revision in one number: the revision of an operation or
transaction, and below it the index of the change inside. Three kinds of entries:

    m                   Head: the store's revision and how far history is compacted
    k <user key>        Entry: where the key's newest change is, and what its next one must know
    r <stamp, 8 bytes>  Change: one put or delete; all of them in order, as a watch reads them

A key's changes form a chain from the newest to the oldest. Every change names the one before it
and, as in a Fenwick tree, the one at its chain position minus that number's lowest set bit; so the
change that was in force at an old revision is found in O(log² n) steps without an index of its own.
`Entry.fingers[i]` is the newest change whose position is a multiple of 2^i: all that the next
change needs to name its two predecessors.
"""

import msgspec
from msgspec import Struct

SUB_BITS = 20

HEAD = b"m"
KEYS, KEYS_END = b"k", b"l"
CHANGES = b"r"


class Head(Struct, frozen=True, array_like=True):
    """An empty store is at revision 1, as etcd's is."""

    revision: int = 1
    compacted: int = 0  # reads below this revision are refused
    swept: int = 0  # changes with stamps up to this one have been looked at by compaction


class Entry(Struct, frozen=True, array_like=True):
    """The newest change of a key; `version` is 0 where that is a delete."""

    create: int
    version: int
    position: int  # in the chain of the key's changes, from 1
    fingers: tuple[int, ...]

    @property
    def stamp(self) -> int:
        """Where its record is."""
        return self.fingers[0]


class Change(Struct, frozen=True, array_like=True):
    """One put, or one delete (`version` 0). `previous` and `jump` are stamps; 0 means none."""

    key: bytes
    value: bytes
    create: int
    version: int
    previous: int
    jump: int
    lease: int = 0


_encoder = msgspec.msgpack.Encoder()
_heads = msgspec.msgpack.Decoder(Head)
_entries = msgspec.msgpack.Decoder(Entry)
_changes = msgspec.msgpack.Decoder(Change)


def encode_record(record: Head | Entry | Change) -> bytes:
    """The bytes under one of the keys above."""
    return _encoder.encode(record)


def decode_head(raw: bytes | None) -> Head:
    """The head of the store; of an empty one where there is none yet."""
    return Head() if raw is None else _heads.decode(raw)


def decode_entry(raw: bytes) -> Entry:
    """What is under `entry_key`."""
    return _entries.decode(raw)


def decode_change(raw: bytes) -> Change:
    """What is under `change_key`."""
    return _changes.decode(raw)


def entry_key(key: bytes) -> bytes:
    """Where the entry of a user's key is."""
    return KEYS + key


def change_key(stamp: int) -> bytes:
    """Where the change with this stamp is."""
    return CHANGES + stamp.to_bytes(8, "big")


def stamp_of(revision: int, sub: int = 0) -> int:
    """The stamp of a revision's change number `sub`."""
    return revision << SUB_BITS | sub


def revision_of(stamp: int) -> int:
    """The (main) revision that a stamp belongs to."""
    return stamp >> SUB_BITS


def advance(fingers: tuple[int, ...], position: int, stamp: int) -> tuple[int, tuple[int, ...]]:
    """The jump of the change that gets `position`, and the fingers after it."""
    zeros = (position & -position).bit_length() - 1
    jump = fingers[zeros] if zeros < len(fingers) else 0
    return jump, (stamp,) * (zeros + 1) + fingers[zeros + 1 :]
