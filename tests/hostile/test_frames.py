"""Streams that are no frames, and frames that never end. Time is fake: no test waits."""

import asyncio
import socket
import tracemalloc

import msgpack
import pytest
from fake_time import run

from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.connection import HANDSHAKE_TIMEOUT, Connection
from network.framing import (
    FRAME_EMPTY,
    FRAME_MALFORMED,
    FRAME_TIMEOUT,
    FRAME_TOO_LARGE,
    FRAME_TRUNCATED,
    FrameDecoder,
    FramingError,
    encode_frame,
    frame_header,
)
from network.handshake import DiallerHandshake, ListenerHandshake
from network.limits import Counters, Limits

LIMITS = Limits()
ALICE, BOB = Ed25519Signer(b"a" * 32), Ed25519Signer(b"b" * 32)
CLUSTER = b"c" * 32


class Wire(asyncio.Transport):
    """What the connection writes, and whether it has hung up."""

    def __init__(self):
        self._socket = socket.socket()
        super().__init__({"socket": self._socket})
        self.written = b""
        self.aborted = False
        self.reading = True

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        self.aborted = True
        self._socket.close()


class Node:
    """Handler and owner of a connection; remembers the frames."""

    def __init__(self):
        self.frames = []

    def on_open(self, connection):
        pass

    def on_frame(self, connection, payload):
        self.frames.append(payload)

    def on_close(self, connection, reason):
        pass

    def authenticated(self, connection):
        pass

    def lost(self, connection):
        pass


class Attacked:
    """An accepted connection, with the attacker at the other end."""

    def __init__(self):
        self.counters, self.node, self.wire = Counters(), Node(), Wire()
        handshake = ListenerHandshake(
            ALICE, Ed25519Verifier(), CLUSTER, {BOB.public_key}.__contains__, b"n" * 32
        )
        self.connection = Connection(handshake, self.node, self.node, LIMITS, self.counters)
        self.connection.connection_made(self.wire)
        self._bob = DiallerHandshake(BOB, Ed25519Verifier(), CLUSTER, ALICE.public_key, b"m" * 32)
        self._opening = handshake.opening

    def send(self, data):
        self.connection.data_received(data)

    def authenticate(self):
        self.send(encode_frame(self._bob.receive(self._opening)))

    async def dribble(self, data, every=1.0):
        """One byte after the other, until the connection is dropped: the seconds that it held."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for byte in data:
            await asyncio.sleep(every)
            if self.wire.aborted:
                break
            self.send(bytes([byte]))
        return loop.time() - started


def attack(scenario):
    async def main():
        attacked = Attacked()
        await scenario(attacked)
        attacked.connection.refuse("end of the test")
        attacked.connection.connection_lost(None)

    run(main())


# --- slowloris -------------------------------------------------------------------------------


def test_a_byte_a_second_does_not_get_past_the_handshake_deadline():
    async def scenario(attacked):
        held = await attacked.dribble(encode_frame(bytes(200)))
        assert held <= LIMITS.handshake_seconds + 1
        assert attacked.counters == {HANDSHAKE_TIMEOUT: 1}

    attack(scenario)


def test_silence_does_not_get_past_the_handshake_deadline():
    async def scenario(attacked):
        await asyncio.sleep(LIMITS.handshake_seconds - 0.1)
        assert not attacked.wire.aborted
        await asyncio.sleep(0.2)
        assert attacked.wire.aborted
        assert attacked.counters == {HANDSHAKE_TIMEOUT: 1}

    attack(scenario)


@pytest.mark.rule("R43")
def test_a_frame_that_dribbles_in_is_given_up_and_its_connection_closed():
    async def scenario(attacked):
        attacked.authenticate()
        held = await attacked.dribble(encode_frame(bytes(60_000)))
        assert LIMITS.frame_seconds <= held <= 2 * LIMITS.frame_seconds + 1
        assert attacked.counters == {FRAME_TIMEOUT: 1}
        assert attacked.node.frames == []

    attack(scenario)


@pytest.mark.rule("R43")
@pytest.mark.parametrize("begun", [b"\xc6", frame_header(70_000), frame_header(200) + b"x"])
def test_a_frame_of_which_nothing_more_comes_is_given_up(begun):
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(begun)
        await asyncio.sleep(2 * LIMITS.frame_seconds)
        assert attacked.wire.aborted
        assert attacked.counters == {FRAME_TIMEOUT: 1}

    attack(scenario)


def test_a_frame_that_dribbles_in_behind_good_ones_is_given_up_too():
    async def scenario(attacked):
        attacked.authenticate()
        for _ in range(100):
            attacked.send(encode_frame(b"good"))
            await asyncio.sleep(1)
        attacked.send(encode_frame(b"good") + b"\xc6")
        await attacked.dribble(bytes([0, 1, 0, 0]) + bytes(200))
        assert attacked.counters == {FRAME_TIMEOUT: 1}
        assert attacked.node.frames == [b"good"] * 101

    attack(scenario)


def test_a_peer_that_is_never_done_but_always_gets_on_is_heard_out():
    """At every moment some frame has begun; each is complete in time."""

    async def scenario(attacked):
        attacked.authenticate()
        one = encode_frame(b"x" * 50)
        attacked.send(one[:20])
        for _ in range(100):
            await asyncio.sleep(LIMITS.frame_seconds - 1)
            attacked.send(one[20:] + one[:20])
        assert not attacked.wire.aborted
        assert len(attacked.node.frames) == 100

    attack(scenario)


def test_a_silent_peer_between_frames_is_left_alone():
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(encode_frame(b"x")[:1])
        attacked.send(encode_frame(b"x")[1:])
        await asyncio.sleep(24 * 3600)
        assert not attacked.wire.aborted
        assert attacked.counters == {}

    attack(scenario)


# --- floods ----------------------------------------------------------------------------------


@pytest.mark.rule("R43")
def test_a_flood_of_frames_is_served_in_turns_and_read_no_further_meanwhile():
    async def scenario(attacked):
        attacked.authenticate()
        await asyncio.sleep(1)  # the handshake's frame has had its turn
        attacked.send(encode_frame(b"flood") * 1000)
        assert len(attacked.node.frames) == LIMITS.frames_in_turn
        assert not attacked.wire.reading
        turns = 1
        while not attacked.wire.reading:
            await asyncio.sleep(0)  # everybody else's turn
            turns += 1
            assert len(attacked.node.frames) <= turns * LIMITS.frames_in_turn
        assert attacked.node.frames == [b"flood"] * 1000

    attack(scenario)


def test_a_flood_that_ends_in_garbage_is_cut_off_there():
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(encode_frame(b"flood") * 100 + b"\xc0" + encode_frame(b"late"))
        await asyncio.sleep(1)
        assert attacked.node.frames == [b"flood"] * 100
        assert attacked.counters == {FRAME_MALFORMED: 1}

    attack(scenario)


def test_a_flood_is_forgotten_once_its_connection_is_closed():
    async def scenario(attacked):
        attacked.authenticate()
        await asyncio.sleep(1)  # the handshake's frame has had its turn
        attacked.send(encode_frame(b"flood") * 1000)
        attacked.connection.refuse("enough")
        await asyncio.sleep(1)
        assert len(attacked.node.frames) == LIMITS.frames_in_turn

    attack(scenario)


# --- frames that break off, or are none ------------------------------------------------------


@pytest.mark.parametrize("sent", range(1, 10))
def test_a_connection_that_ends_inside_a_frame_is_counted_and_hands_out_nothing(sent):
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(encode_frame(b"12345678")[:sent])
        attacked.connection.connection_lost(None)
        whole = sent == len(encode_frame(b"12345678"))
        assert attacked.node.frames == ([b"12345678"] if whole else [])
        assert attacked.counters == ({} if whole else {FRAME_TRUNCATED: 1})

    attack(scenario)


def test_a_connection_that_ends_between_frames_is_not_counted():
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(encode_frame(b"whole"))
        attacked.connection.connection_lost(None)
        assert attacked.counters == {}

    attack(scenario)


NO_FRAMES = {
    "-1": msgpack.packb(-1),
    "-128": msgpack.packb(-128),
    "-2^63": msgpack.packb(-(2**63)),
    "2^64-1": msgpack.packb(2**64 - 1),
    "nothing": msgpack.packb(None),
    "true": msgpack.packb(True),
    "a float": msgpack.packb(0.5),
    "a map": b"\xdf\xff\xff\xff\xff",
    "an array": b"\xdd\xff\xff\xff\xff",
    "a string": b"\xdb\xff\xff\xff\xff",
    "an extension": b"\xc9\xff\xff\xff\xff\x01",
    "no MessagePack": b"\xc1",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
BAD_LENGTHS = {
    "2^32-1 bytes": (b"\xc6\xff\xff\xff\xff", FRAME_TOO_LARGE),
    "-1 as 32 bits": (b"\xc6" + (-1).to_bytes(4, "big", signed=True), FRAME_TOO_LARGE),
    "one byte above the limit": (frame_header(LIMITS.max_frame_bytes + 1), FRAME_TOO_LARGE),
    "0 bytes": (b"\xc4\x00", FRAME_EMPTY),
    "0 bytes at length": (b"\xc6\x00\x00\x00\x00", FRAME_EMPTY),
    "a long header": (b"\xc6\x00\x00\x00\x05hello", FRAME_MALFORMED),
}
HEADERS = {name: (data, FRAME_MALFORMED) for name, data in NO_FRAMES.items()} | BAD_LENGTHS


@pytest.mark.parametrize(("data", "reason"), HEADERS.values(), ids=HEADERS)
def test_what_is_no_frame_closes_the_connection_at_its_header(data, reason):
    async def scenario(attacked):
        attacked.authenticate()
        attacked.send(data)
        assert attacked.wire.aborted
        assert attacked.counters == {reason: 1}
        attacked.send(encode_frame(b"late"))
        assert attacked.node.frames == []

    attack(scenario)


def test_nothing_is_allocated_for_a_frame_that_is_only_announced():
    decoder = FrameDecoder(LIMITS.max_frame_bytes)
    tracemalloc.start()
    try:
        decoder.feed(frame_header(LIMITS.max_frame_bytes))
        assert decoder.next_frame() is None
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_decoder_that_has_lost_its_frames_keeps_nothing_of_what_follows():
    decoder = FrameDecoder(100)
    decoder.feed(b"\xc0")
    with pytest.raises(FramingError):
        decoder.next_frame()
    block = bytes(1_000_000)
    tracemalloc.start()
    try:
        for _ in range(10):
            decoder.feed(block)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_what_is_buffered_is_one_frame_and_what_came_behind_it():
    decoder = FrameDecoder(10_000)
    stream = encode_frame(bytes(10_000)) * 3
    tracemalloc.start()
    try:
        for _ in range(200):
            for start in range(0, len(stream), 4_096):
                decoder.feed(stream[start : start + 4_096])
                while decoder.next_frame() is not None:
                    pass
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
