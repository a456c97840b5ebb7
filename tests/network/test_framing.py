import contextlib

import msgpack
import pytest
from hypothesis import given, strategies as st

from network.framing import (
    FRAME_EMPTY,
    FRAME_MALFORMED,
    FRAME_TOO_LARGE,
    FrameDecoder,
    FramingError,
    encode_frame,
)


def decode(decoder, data):
    decoder.feed(data)
    return list(iter(decoder.next_frame, None))


def error(data, limit=1000):
    with pytest.raises(FramingError) as raised:
        decode(FrameDecoder(limit), data)
    return raised.value.reason


def chunks(data, sizes):
    while data:
        size = next(sizes, len(data))
        yield data[:size]
        data = data[size:]


PAYLOADS = st.lists(st.binary(min_size=1, max_size=600), max_size=6)


@given(PAYLOADS, st.lists(st.integers(1, 300)))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(payloads, sizes):
    decoder = FrameDecoder(600)
    stream = b"".join(map(encode_frame, payloads))
    received = [frame for chunk in chunks(stream, iter(sizes)) for frame in decode(decoder, chunk)]
    assert received == payloads


@pytest.mark.parametrize("length", [1, 255, 256, 65535, 65536, 100_000])
def test_a_frame_is_what_msgpack_packs(length):
    payload = bytes(length)
    assert encode_frame(payload) == msgpack.packb(payload)
    assert decode(FrameDecoder(length), msgpack.packb(payload)) == [payload]


@given(st.binary(max_size=80), st.lists(st.integers(1, 9)))
def test_garbage_is_nothing_or_frames_or_a_framing_error(garbage, sizes):
    decoder, frames = FrameDecoder(50), []
    with contextlib.suppress(FramingError):
        for chunk in chunks(garbage, iter(sizes)):
            frames += decode(decoder, chunk)
    assert garbage.startswith(b"".join(map(encode_frame, frames)))


@given(st.recursive(st.none() | st.integers(0, 9) | st.text(max_size=9), st.lists, max_leaves=4))
def test_objects_other_than_bin_are_refused(value):
    assert error(msgpack.packb(value)) == FRAME_MALFORMED


@pytest.mark.parametrize("header", [b"\xc4\x00", b"\xc5\x00\x00", b"\xc6\x00\x00\x00\x00"])
def test_an_empty_frame_is_refused(header):
    assert error(header) == FRAME_EMPTY


@pytest.mark.parametrize(
    "header", [b"\xc5\x00\x01", b"\xc5\x00\xff", b"\xc6\x00\x00\x00\x01", b"\xc6\x00\x00\xff\xff"]
)
def test_a_header_that_is_not_the_shortest_is_refused(header):
    assert error(header, limit=1 << 20) == FRAME_MALFORMED


@pytest.mark.parametrize("header", [b"\xc4\x65", b"\xc5\x01\x00", b"\xc6\xff\xff\xff\xff"])
def test_a_frame_beyond_the_limit_is_refused_on_sight_of_its_header(header):
    assert error(header, limit=100) == FRAME_TOO_LARGE


def test_a_frame_at_the_limit_is_accepted():
    assert decode(FrameDecoder(100), encode_frame(b"x" * 100)) == [b"x" * 100]


def test_frames_before_an_error_are_handed_out_and_none_after_it():
    decoder = FrameDecoder(100)
    decoder.feed(encode_frame(b"good") + b"\xc0" + encode_frame(b"late"))
    assert decoder.next_frame() == b"good"
    for _ in range(2):
        with pytest.raises(FramingError):
            decoder.next_frame()
    decoder.feed(encode_frame(b"later"))
    with pytest.raises(FramingError):
        decoder.next_frame()


def test_the_limit_can_rise_between_frames_that_arrived_together():
    decoder = FrameDecoder(10)
    decoder.feed(encode_frame(b"small") + encode_frame(b"x" * 100))
    assert decoder.next_frame() == b"small"
    decoder.max_frame_bytes = 100
    assert decoder.next_frame() == b"x" * 100
