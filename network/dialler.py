"""Keeps one outbound connection alive."""

import asyncio
import os
import random

from crypto.signing import Ed25519Verifier, Signer
from network.connection import DISCONNECTED, Connection, ConnectionHandler
from network.handshake import NONCE_BYTES, DiallerHandshake
from network.limits import Counters, Limits

DIAL_FAILED = "dial-failed"

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 2.0

_CLOSED = "the dialler is closed"


class Dialler:
    """A connection to the holder of one public key, dialled again whenever it is lost.

    It waits 50 ms at first, twice as long after each failure, 2 s at most, each time shortened at
    random by up to a half. A connection that held for longer than that starts this over, and so
    does `hasten`. Nothing is queued while there is no connection: whoever sends knows what is worth
    sending again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        expected: bytes,
        identity: Signer,
        cluster_id: bytes,
        handler: ConnectionHandler,
        limits: Limits,
        counters: Counters,
    ) -> None:
        """Starts dialling; needs a running event loop. `expected` is the other's public key."""
        self._address = (host, port)
        self._expected = expected
        self._identity = identity
        self._verifier = Ed25519Verifier()
        self._cluster_id = cluster_id
        self._handler = handler
        self._limits = limits
        self._counters = counters
        self._connection: Connection | None = None  # once it is authenticated
        self._attempt: tuple[Connection, asyncio.Future[None]] | None = None
        self._hastened = asyncio.Event()
        self._dialling = asyncio.create_task(self._dial_for_ever())

    def send(self, payload: bytes) -> bool:
        """Queue one frame. False, with a count of why, if it was dropped instead. Never blocks."""
        if self._connection is None:
            self._counters[DISCONNECTED] += 1
            return False
        return self._connection.send(payload)

    def hasten(self) -> None:
        """The other is there: if it is not connected, dial it now."""
        self._hastened.set()

    def close(self) -> None:
        """Close the connection and dial no more. Idempotent."""
        self._dialling.cancel()
        if self._connection is not None:
            self._connection.close(_CLOSED)

    def authenticated(self, connection: Connection) -> None:
        self._connection = connection

    def lost(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
        if self._attempt is not None:
            current, ended = self._attempt
            if current is connection and not ended.done():
                ended.set_result(None)

    async def _dial_for_ever(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            if await self._dial() > LAST_RETRY_SECONDS:
                delay = FIRST_RETRY_SECONDS
            hastened = await self._pause(delay * random.uniform(0.5, 1.0))
            delay = FIRST_RETRY_SECONDS if hastened else min(2 * delay, LAST_RETRY_SECONDS)

    async def _pause(self, seconds: float) -> bool:
        """Wait so long, or until it is hastened: whether it was."""
        self._hastened.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hastened.wait()
        except TimeoutError:
            return False
        return True

    async def _dial(self) -> float:
        """One connection, from its beginning to its end. Returns the seconds that it held."""
        loop = asyncio.get_running_loop()
        connection = Connection(self._greeting(), self._handler, self, self._limits, self._counters)
        ended = loop.create_future()
        self._attempt = connection, ended
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                await loop.create_connection(lambda: connection, *self._address)
        except (OSError, UnicodeError):  # time-outs, and names that cannot be looked up
            self._counters[DIAL_FAILED] += 1
            return 0.0
        started = loop.time()
        try:
            await ended
        finally:
            connection.close(_CLOSED)
        return loop.time() - started

    def _greeting(self) -> DiallerHandshake:
        nonce = os.urandom(NONCE_BYTES)
        return DiallerHandshake(
            self._identity, self._verifier, self._cluster_id, self._expected, nonce
        )
