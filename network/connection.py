"""One authenticated connection: frames in, frames out, within bounds.

The callbacks are synchronous (`asyncio.Protocol`), so a frame goes from the socket to its handler
without a task or a queue in between. What is sent within one iteration of the event loop leaves in
one write.
"""

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from network.framing import (
    FRAME_TIMEOUT,
    FRAME_TRUNCATED,
    MAX_HEADER_BYTES,
    FrameDecoder,
    FramingError,
    frame_header,
)
from network.handshake import MAX_HANDSHAKE_BYTES, Handshake, HandshakeError
from network.limits import Counters, Limits

HANDSHAKE_TIMEOUT = "handshake-timeout"
UNAUTHENTICATED = "unauthenticated"  # the other end went away before it had authenticated
OUTBOUND_FULL = "outbound-full"
OUTBOUND_SIZE = "outbound-size"  # an empty payload, or one that no peer would accept
DISCONNECTED = "disconnected"  # sent although there is no connection

# A peer that loses power says nothing: the kernel notices after about 25 s while nothing is sent,
# and after 20 s (in ms) without an acknowledgement while something is; otherwise it would send
# again at ever longer intervals, and a channel stay deaf as long again as a partition has lasted.
# (A peer that reads nothing for so long, its window closed, is cut off as well.)
_KEEPALIVE_OPTIONS = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 20_000),
)


class ConnectionHandler(Protocol):
    """Who is told about authenticated connections, and only about these."""

    def on_open(self, connection: "Connection") -> None:
        """Both ends have authenticated; `connection.peer` is the other's public key."""
        ...

    def on_frame(self, connection: "Connection", payload: bytes) -> None:
        """The peer has sent `payload`."""
        ...

    def on_close(self, connection: "Connection", reason: str) -> None:
        """The connection is gone; called once for each `on_open`."""
        ...


class Owner(Protocol):
    """Who keeps count of connections, the unauthenticated ones included."""

    def authenticated(self, connection: "Connection") -> None: ...

    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """A connection to the holder of one public key. Made by a `Listener` or a `Dialler`."""

    def __init__(
        self,
        handshake: Handshake,
        handler: ConnectionHandler,
        owner: Owner,
        limits: Limits,
        counters: Counters,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handshake = handshake
        self._handler = handler
        self._owner = owner
        self._limits = limits
        self._counters = counters
        self._decoder = FrameDecoder(MAX_HANDSHAKE_BYTES)
        self._transport: asyncio.Transport  # both from `connection_made` on
        self._timer: asyncio.TimerHandle
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.frames_in_turn = limits.frames_in_turn  # fewer where an identity has many connections
        self._frames = 0  # received so far
        self._served = 0  # of them, in this iteration of the event loop
        self._made = False
        self._open = False  # authenticated, and the handler knows
        self._queuing = False  # it has had its turn, and waits for the next
        self._timed = False  # the timer watches over a frame that has begun
        self._reason: str | None = None  # why it is being closed, once it is

    @property
    def peer(self) -> bytes:
        """The public key (32 bytes) of the other end."""
        return self._handshake.peer

    @property
    def authenticated(self) -> bool:
        """Whether both ends have shown who they are."""
        return self._open

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._reason is not None

    def send(self, payload: bytes) -> bool:
        """Queue one frame. False, with a count of why, if it was dropped instead. Never blocks."""
        if self.closed:
            return self._drop(DISCONNECTED)
        size = len(payload)
        if not 0 < size <= self._limits.max_frame_bytes:
            return self._drop(OUTBOUND_SIZE)
        waiting = self._pending_bytes + self._transport.get_write_buffer_size()
        if waiting + size + MAX_HEADER_BYTES > self._limits.outbound_bytes:
            return self._drop(OUTBOUND_FULL)
        self._queue(payload)
        return True

    def close(self, reason: str) -> None:
        """Close it once the queued frames have left, for which they get a moment. Idempotent."""
        if self.closed:
            return
        if self._made:
            self._flush()
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limits.close_seconds, self._transport.abort)
            self._transport.close()
        self._reason = reason

    def refuse(self, reason: str) -> None:
        """Drop it at once, with what is queued, and count `reason`. Idempotent."""
        if self.closed:
            return
        self._reason = reason
        self._counters[reason] += 1
        if self._made:
            self._transport.abort()

    # --- called by the event loop ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._made = True
        _tune(transport.get_extra_info("socket"))
        self._timer = self._loop.call_later(
            self._limits.handshake_seconds, self.refuse, HANDSHAKE_TIMEOUT
        )
        if self.closed:
            self._transport.abort()
        elif self._handshake.opening is not None:
            self._queue(self._handshake.opening)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._decoder.feed(data)
        if not self._queuing:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._reason is None:
            self._reason = "closed by the peer" if exc is None else "connection lost"
            if not self._open:
                self._counters[UNAUTHENTICATED] += 1
            elif self._decoder.unfinished:
                self._counters[FRAME_TRUNCATED] += 1
        self._pending.clear()
        self._owner.lost(self)
        if self._open:
            self._handler.on_close(self, self._reason)

    # --- inside ------------------------------------------------------------------------------

    def _deliver(self) -> None:
        try:
            if not self._served:
                self._loop.call_soon(self._new_turn)
            while self._served < self.frames_in_turn:
                frame = self._decoder.next_frame()
                if frame is None:
                    self._expect_the_rest()
                    return
                self._frames += 1
                self._served += 1
                if self._open:
                    self._handler.on_frame(self, frame)
                else:
                    self._greet(frame)
                if self.closed:
                    return
        except (FramingError, HandshakeError) as error:
            self.refuse(error.reason)
            return
        if self._decoder.unfinished:
            self._queue_up()

    def _new_turn(self) -> None:
        self._served = 0

    def _queue_up(self) -> None:
        """What is left comes, and more is read, once everybody else was served (R43)."""
        self._queuing = True
        self._transport.pause_reading()
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._queuing = False
        if self.closed:
            return
        self._deliver()
        if not self._queuing and not self.closed:
            self._transport.resume_reading()

    def _expect_the_rest(self) -> None:
        """Start the clock on a frame that has begun; the handshake has a clock of its own."""
        if self._open and not self._timed and self._decoder.unfinished:
            self._timed = True
            self._timer = self._loop.call_later(
                self._limits.frame_seconds, self._look_at_the_clock, self._frames
            )

    def _look_at_the_clock(self, frames: int) -> None:
        """Cheap where it counts: the timer runs on while frames come, and is compared here."""
        self._timed = False
        if frames == self._frames:
            self.refuse(FRAME_TIMEOUT)
        else:
            self._expect_the_rest()

    def _greet(self, frame: bytes) -> None:
        answer = self._handshake.receive(frame)
        if answer is not None:
            self._queue(answer)
        if self._handshake.done:
            self._timer.cancel()
            self._decoder.max_frame_bytes = self._limits.max_frame_bytes
            self._open = True
            self._owner.authenticated(self)
            self._handler.on_open(self)

    def _drop(self, reason: str) -> bool:
        self._counters[reason] += 1
        return False

    def _queue(self, payload: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        header = frame_header(len(payload))
        self._pending += (header, payload)
        self._pending_bytes += len(header) + len(payload)

    def _flush(self) -> None:
        if self._pending and not self.closed:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()
            self._pending_bytes = 0


def _tune(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer may be gone already: the transport will say so
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_OPTIONS:
            if hasattr(socket, name):  # not everywhere: the heartbeats above notice anyhow
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
