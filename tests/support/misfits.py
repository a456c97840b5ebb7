"""Everything that can be wrong with the MessagePack of one message."""

from collections.abc import Iterator
from typing import Any

import msgpack

NUMBERS = [True, False, -1, -(2**63), 2**63, 2**64 - 1, 2.0**64, 1.0, None, "1", b"\1", [], {}]
BOOLEANS = [0, 1, -1, None, "true", b"\1", [], 1.0]
BAD_UTF8 = msgpack.ExtType(0, b"bad utf-8")  # see `pack`
MISFITS = [None, True, 7, -7, 2**64 - 1, [], {}, 0.5, "text", BAD_UTF8, msgpack.Timestamp(1, 2)]


def pack(value: Any) -> bytes:
    """MessagePack with one thing that no packer makes: a string that is not UTF-8."""
    bad = msgpack.packb(BAD_UTF8)
    packed: bytes = msgpack.packb(value)
    return packed.replace(bad, b"\xa2\xff\xfe")


def unpack(raw: bytes) -> Any:
    """What `raw` says, with arrays as lists."""
    return msgpack.unpackb(raw, raw=False)


def leaves(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The path and content of everything in a nested list that is not a list."""
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path, value


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """`value` with something else in one place."""
    if not path:
        return new
    copy = list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def misfits(value: Any) -> list[Any]:
    """What cannot stand in the place of `value`."""
    if isinstance(value, bool):
        return BOOLEANS
    if isinstance(value, int):
        return NUMBERS
    lengths = [0, len(value) - 1, len(value) + 1] if len(value) in (32, 64) else []
    return [*MISFITS, *map(bytes, lengths)]


def wrong_fields(raw: bytes) -> Iterator[bytes]:
    """One field after the other of another type, out of range, or of another length."""
    whole = unpack(raw)
    for path, value in leaves(whole):
        for new in misfits(value):
            yield pack(changed(whole, path, new))


def wrong_shapes(raw: bytes) -> Iterator[bytes]:
    """Unknown types, missing and additional fields, other containers, nothing at all."""
    whole = unpack(raw)
    tag, *fields = whole
    for unknown in (99, 127, 255, -1, 2**32, 2**64 - 1, True, None, str(tag), b"\1", [tag], 1.5):
        yield pack([unknown, *fields])
    yield pack(fields)
    yield pack([*whole, 0])
    yield pack([*whole, None])
    yield pack(whole[:-1])
    yield pack([tag])
    yield pack([])
    yield pack({str(i): part for i, part in enumerate(whole)})
    yield pack(dict(enumerate(whole)))
    yield pack([whole])
    yield pack(raw)
    yield from (b"", b"\xc1", b"\xc0", pack(tag))
    yield from (raw + extra for extra in (b"\x00", b"\xc0", raw))
    yield from (raw[:length] for length in range(len(raw)))


def other_encodings(raw: bytes) -> Iterator[bytes]:
    """The same values, written in more bytes than needed."""
    fields = raw[1:]
    count = raw[0] & 0x0F
    assert raw[0] >> 4 == 0x9
    yield b"\xdc" + count.to_bytes(2, "big") + fields
    yield b"\xdd" + count.to_bytes(4, "big") + fields
    for code, width in ((b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4), (b"\xcf", 8)):
        yield raw[:1] + code + fields[0].to_bytes(width, "big") + fields[1:]  # the tag
    for code, width in ((b"\xd0", 1), (b"\xd1", 2), (b"\xd2", 4), (b"\xd3", 8)):
        yield raw[:1] + code + fields[0].to_bytes(width, "big") + fields[1:]


def other_strings(raw: bytes) -> Iterator[bytes]:
    """The first 32 bytes with a longer header, and as text."""
    if (place := raw.find(b"\xc4\x20")) >= 0:
        for header in (b"\xc5\x00\x20", b"\xc6\x00\x00\x00\x20", b"\xd9\x20"):
            yield raw[:place] + header + raw[place + 2 :]
