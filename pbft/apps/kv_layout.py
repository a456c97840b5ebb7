"""How the key-value store lies in the ordered byte map.

Every put and delete is a *change*, and changes are numbered from 1. Four kinds of entries:

    m                    Head: the store's revision, and which history is there
    k <user key>         Entry: what the key holds now
    r <block, 8 bytes>   the changes `16 * block` to `16 * block + 15`, in order
    v <change, 8 bytes>  the value that this change put, where it is a long one

A change keeps what it *replaced*: what a key held at an old revision is what its first change after
that replaced. So what is live never depends on history, history is dropped a block at a time from
its oldest end, and an operation costs its key's entry and a sixteenth of a block.

A key's changes form a chain from the newest to the oldest. Every change names the one before it
and, as in a Fenwick tree, the one at its chain position minus that number's lowest set bit; so the
first change after an old revision is found in O(log² n) steps without an index of its own.
`Entry.fingers[i]` is the newest change whose position is a multiple of 2^i: all that the next
change needs to name its two predecessors.
"""

import msgspec
from msgspec import Struct

from pbft.apps.state_machine import ReadableState

HEAD = b"m"
KEYS, KEYS_END = b"k", b"l"
BLOCKS = b"r"
LONG_VALUES = b"v"

BLOCK_BITS = 4
MAX_INLINE_BYTES = 1024  # of a value beside its numbers; so a block stays small

_ARRAY16 = b"\xdc"  # MessagePack: an array whose length is in the two bytes that follow


class Head(Struct, frozen=True, array_like=True):
    """An empty store is at revision 1, as etcd's is."""

    revision: int = 1
    compacted: int = 0  # reads below this revision are refused
    changes: int = 0  # the number of the newest one
    oldest: int = 0  # the first block that is still there
    due: int = 0  # the revision of that block's last change; 0 while there is room in it


class Held(Struct, frozen=True, array_like=True):
    """What a key holds: etcd's numbers, and the value, or the change under which it lies apart."""

    value: bytes
    create: int
    mod: int
    version: int
    apart: int = 0
    lease: int = 0


class Entry(Struct, frozen=True, array_like=True):
    """What a key holds now, None where it is deleted and some revision may still show it."""

    held: Held | None
    position: int  # of the newest change in the chain of the key's changes, from 1
    fingers: tuple[int, ...]

    @property
    def newest(self) -> int:
        """The number of the newest change."""
        return self.fingers[0]


class Change(Struct, frozen=True, array_like=True):
    """One put or delete. `previous` and `jump` are changes of the same key; 0 means none."""

    key: bytes
    revision: int
    deleted: bool
    previous: int
    jump: int
    replaced: Held | None


_encoder = msgspec.msgpack.Encoder()
_heads = msgspec.msgpack.Decoder(Head)
_entries = msgspec.msgpack.Decoder(Entry)
_blocks = msgspec.msgpack.Decoder(tuple[Change, ...])


def encode_record(record: Head | Entry) -> bytes:
    """The bytes under `HEAD` or an entry's key."""
    return _encoder.encode(record)


def decode_head(raw: bytes | None) -> Head:
    """The head of the store; of an empty one where there is none yet."""
    return Head() if raw is None else _heads.decode(raw)


def decode_entry(raw: bytes) -> Entry:
    """What is under `entry_key`."""
    return _entries.decode(raw)


def extended(raw: bytes | None, change: Change) -> bytes:
    """A block with one more change; `raw` is None for a new one. The others stay encoded."""
    count, before = (0, b"") if raw is None else (int.from_bytes(raw[1:3], "big"), raw[3:])
    return _ARRAY16 + (count + 1).to_bytes(2, "big") + before + _encoder.encode(change)


def load_block(state: ReadableState, block: int) -> tuple[Change, ...]:
    """The changes of a block that was not dropped, in order."""
    raw = state.get(block_key(block))
    assert raw is not None, "history above the compacted revision is there"
    return _blocks.decode(raw)


def entry_key(key: bytes) -> bytes:
    """Where the entry of a user's key is."""
    return KEYS + key


def block_of(change: int) -> int:
    """The block that a change is in."""
    return change >> BLOCK_BITS


def first_of(block: int) -> int:
    """The number of the first change in a block (change 0 is none, so block 0 has 15)."""
    return max(1, block << BLOCK_BITS)


def block_end(block: int) -> int:
    """The number of the last change that a block has room for."""
    return (block + 1 << BLOCK_BITS) - 1


def block_key(block: int) -> bytes:
    """Where a block is."""
    return BLOCKS + block.to_bytes(8, "big")


def value_key(change: int) -> bytes:
    """Where the long value is that this change put."""
    return LONG_VALUES + change.to_bytes(8, "big")


def advance(fingers: tuple[int, ...], position: int, change: int) -> tuple[int, tuple[int, ...]]:
    """The jump of the change that gets `position`, and the fingers after it."""
    zeros = (position & -position).bit_length() - 1
    jump = fingers[zeros] if zeros < len(fingers) else 0
    return jump, (change,) * (zeros + 1) + fingers[zeros + 1 :]
