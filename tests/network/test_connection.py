"""A connection on a transport that records what is written to it."""

import asyncio
import socket

import pytest

from network.connection import Connection
from network.framing import FrameDecoder, encode_frame
from network.limits import Limits


class Ready:
    """A handshake that is over with the first frame."""

    opening = None
    peer = b"p" * 32
    done = False

    def receive(self, frame):
        assert frame == b"hello"
        self.done = True


class Owner:
    def authenticated(self, connection):
        pass

    def lost(self, connection):
        pass


class Transport(asyncio.Transport):
    def __init__(self):
        self.writes = []
        self.aborted = False
        self.waiting = 0
        self._socket = socket.socket()
        super().__init__({"socket": self._socket})

    def write(self, data):
        self.writes.append(data)

    def get_write_buffer_size(self):
        return self.waiting

    def abort(self):
        self.aborted = True

    def close(self):
        self._socket.close()


class Echo:
    def on_open(self, connection):
        pass

    def on_frame(self, connection, payload):
        connection.send(payload)

    def on_close(self, connection, reason):
        assert connection.closed
        assert reason


@pytest.fixture
def in_connection(counters):
    """Run `scenario(connection, transport)` on an open connection."""

    def run(scenario, limits=Limits()):  # noqa: B008
        async def body():
            connection, transport = (
                Connection(Ready(), Echo(), Owner(), limits, counters),
                Transport(),
            )
            connection.connection_made(transport)
            connection.data_received(encode_frame(b"hello"))
            await scenario(connection, transport)
            connection.close("end")
            transport.close()
            connection.connection_lost(None)

        asyncio.run(body())

    return run


def frames(data):
    decoder = FrameDecoder(1 << 20)
    decoder.feed(data)
    return list(iter(decoder.next_frame, None))


def test_what_is_sent_in_one_iteration_of_the_loop_leaves_in_one_write(in_connection):
    async def scenario(connection, transport):
        for payload in (b"1", b"2", b"3"):
            connection.send(payload)
        assert transport.writes == []
        await asyncio.sleep(0)
        assert list(map(frames, transport.writes)) == [[b"1", b"2", b"3"]]
        connection.send(b"4")
        await asyncio.sleep(0)
        assert frames(transport.writes[1]) == [b"4"]
        await asyncio.sleep(0)
        assert len(transport.writes) == 2

    in_connection(scenario)


def test_closing_writes_what_is_queued(in_connection):
    async def scenario(connection, transport):
        connection.send(b"last")
        connection.close("done")
        assert list(map(frames, transport.writes)) == [[b"last"]]

    in_connection(scenario)


def test_the_outbound_bound_counts_what_is_queued_and_what_the_transport_holds(
    in_connection, counters
):
    async def scenario(connection, transport):
        transport.waiting = 700
        assert connection.send(b"x" * 100)
        assert connection.send(b"x" * 100)
        assert not connection.send(b"x" * 100)
        transport.waiting = 0
        assert connection.send(b"x" * 100)
        assert counters == {"outbound-full": 1}

    in_connection(scenario, Limits(max_frame_bytes=100, outbound_bytes=1000))


def test_a_refused_connection_writes_nothing_more(in_connection, counters):
    async def scenario(connection, transport):
        connection.send(b"queued")
        connection.refuse("bad")
        connection.refuse("bad")
        connection.data_received(encode_frame(b"echo?"))
        await asyncio.sleep(0)
        assert transport.aborted
        assert transport.writes == []
        assert counters == {"bad": 1}

    in_connection(scenario)


def test_the_socket_sends_at_once_and_is_kept_alive(in_connection):
    async def scenario(_, transport):
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    in_connection(scenario)


def test_a_connection_closed_before_it_was_made_is_dropped_when_it_is(counters):
    async def body():
        connection = Connection(Ready(), Echo(), Owner(), Limits(), counters)
        transport = Transport()
        connection.close("too late")
        connection.connection_made(transport)
        assert transport.aborted
        transport.close()
        connection.connection_lost(None)

    asyncio.run(body())


def test_an_outbound_bound_below_the_frame_limit_is_a_mistake():
    with pytest.raises(ValueError, match="outbound_bytes"):
        Limits(max_frame_bytes=10, outbound_bytes=10)
