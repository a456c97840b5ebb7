import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
import uvloop

from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.framing import FrameDecoder, encode_frame
from network.handshake import DiallerHandshake
from network.tcp import Counters, Dialler, Limits, listen

CLUSTER = b"c" * 32
SECONDS = 20


class Watched(Counter):
    """Counters that can be waited for."""

    def __init__(self):
        super().__init__()
        self._changed = asyncio.Event()

    def __setitem__(self, reason, count):
        super().__setitem__(reason, count)
        self._changed.set()

    async def reach(self, reason, count=1):
        while self[reason] < count:
            self._changed.clear()
            await self._changed.wait()


class Recorder:
    """A handler that keeps what it is told, and lets a test wait for it."""

    def __init__(self, on_open=None, on_frame=None):
        self.opened, self.frames, self.closed = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        self.connections = []
        self._then_open, self._then_frame = on_open, on_frame

    def on_open(self, connection):
        self.connections.append(connection)
        self.opened.put_nowait(connection)
        if self._then_open:
            self._then_open(connection)

    def on_frame(self, connection, payload):
        self.frames.put_nowait((connection.peer, payload))
        if self._then_frame:
            self._then_frame(connection, payload)

    def on_close(self, connection, reason):
        self.closed.put_nowait((connection, reason))


class RawPeer:
    """A socket in the hands of somebody who need not keep to the rules."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.sent = b""
        self._decoder = FrameDecoder(1 << 20)

    def send(self, data):
        self.sent += data
        self.writer.write(data)

    async def frame(self):
        """The next frame; None at the end of the stream."""
        while (frame := self._decoder.next_frame()) is None:
            data = await self._read()
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    async def ended(self):
        """Read up to the end of the stream."""
        while await self._read():
            pass

    async def _read(self):
        try:
            return await self.reader.read(1 << 16)
        except ConnectionError:
            return b""

    async def authenticate(self, signer, expected, cluster=CLUSTER, nonce=b"n" * 32):
        handshake = DiallerHandshake(signer, Ed25519Verifier(), cluster, expected, nonce)
        self.send(encode_frame(handshake.receive(await self.frame())))
        handshake.receive(await self.frame())


@dataclass
class Network:
    """One listener with its handler, and the means to talk to it; closed at the end of the test."""

    alice: Ed25519Signer  # listens
    bob: Ed25519Signer  # dials, and is authorised
    eve: Ed25519Signer  # nobody knows her
    cluster = CLUSTER
    Recorder = Recorder

    def __post_init__(self):
        self.authorised = {self.bob.public_key}
        self.counters = Watched()
        self.dialler_counters = Watched()
        self._cleanup = []

    async def listen(self, handler, limits=None, port=0):
        self.listener = await listen(
            "127.0.0.1",
            port,
            self.alice,
            CLUSTER,
            self.authorised.__contains__,
            handler,
            limits or Limits(),
            self.counters,
        )
        self._cleanup.append(self.listener)
        return self.listener

    def dial(self, handler, signer=None, expected=None, cluster=CLUSTER, limits=None):
        dialler = Dialler(
            "127.0.0.1",
            self.listener.port,
            expected or self.alice.public_key,
            signer or self.bob,
            cluster,
            handler,
            limits or Limits(),
            self.dialler_counters,
        )
        self._cleanup.append(dialler)
        return dialler

    async def raw(self):
        peer = RawPeer(*await asyncio.open_connection("127.0.0.1", self.listener.port))
        self._cleanup.append(peer.writer)
        return peer

    async def raw_as_bob(self):
        peer = await self.raw()
        await peer.authenticate(self.bob, self.alice.public_key)
        return peer

    async def close(self):
        for each in self._cleanup:
            each.close()
        await self.listener.wait_closed()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run `scenario(network)` on an event loop; everything is closed when it ends."""

    def run_scenario(scenario):
        async def bounded():
            network = Network(*(Ed25519Signer(bytes([n]) * 32) for n in (1, 2, 3)))
            async with asyncio.timeout(SECONDS):
                try:
                    await scenario(network)
                finally:
                    await network.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run_scenario


@pytest.fixture
def counters():
    return Counters()
