"""Accepts connections, bounds them, and authenticates whoever is on the other end."""

import asyncio
import os
import socket
from collections.abc import Callable
from ssl import SSLContext

from crypto.signing import Ed25519Verifier, Signer
from network.admission import Admission
from network.connection import Connection, ConnectionHandler
from network.handshake import NONCE_BYTES, ListenerHandshake
from network.limits import Counters, Limits

TOO_MANY_OF_IDENTITY = "too-many-of-identity"
ACCEPT_FAILED = "accept-failed"
TLS_FAILED = "tls-failed"

_BACKLOG = 128
_ACCEPT_RETRY_SECONDS = 0.1


async def listen(
    host: str,
    port: int,
    identity: Signer,
    cluster_id: bytes,
    authorize: Callable[[bytes], bool],
    handler: ConnectionHandler,
    limits: Limits,
    counters: Counters,
    *,
    ssl: SSLContext | None = None,
) -> "Listener":
    """Listen on `host` and `port` (0: any free one) for holders of keys that `authorize` accepts.

    Raises OSError if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    server.setblocking(False)
    verifier = Ed25519Verifier()

    def handshake() -> ListenerHandshake:
        nonce = os.urandom(NONCE_BYTES)
        return ListenerHandshake(identity, verifier, cluster_id, authorize, nonce)

    return Listener(server, handshake, handler, limits, counters, ssl)


class Listener:
    """An open port. Made by `listen`."""

    def __init__(
        self,
        server: socket.socket,
        handshake: Callable[[], ListenerHandshake],
        handler: ConnectionHandler,
        limits: Limits,
        counters: Counters,
        ssl: SSLContext | None,
    ) -> None:
        self.port: int = server.getsockname()[1]
        self._server = server
        self._handshake = handshake
        self._handler = handler
        self._limits = limits
        self._counters = counters
        self._ssl = ssl
        self._admission = Admission(limits)
        self._waiting: dict[Connection, str] = {}  # unauthenticated, with their addresses
        self._by_identity: dict[bytes, dict[Connection, None]] = {}  # oldest first
        self._starting: dict[asyncio.Task[None], None] = {}
        self._accepting = asyncio.create_task(self._accept())
        # Not in the task itself: it may be cancelled before it has begun.
        self._accepting.add_done_callback(lambda _: server.close())

    def close(self) -> None:
        """Accept no more and close every connection. Idempotent."""
        self._accepting.cancel()
        for task in list(self._starting):
            task.cancel()
        for connection in self._connections():
            connection.close("the listener is closed")

    async def wait_closed(self) -> None:
        """Wait, after `close`, until the port is free again."""
        await asyncio.wait([self._accepting, *self._starting])

    def authenticated(self, connection: Connection) -> None:
        """The newest connections of an identity stay: an older one may be dead and not know it."""
        self._admission.release(self._waiting.pop(connection))
        siblings = self._by_identity.setdefault(connection.peer, {})
        if len(siblings) >= self._limits.max_connections_per_identity:
            oldest = next(iter(siblings))
            del siblings[oldest]
            oldest.refuse(TOO_MANY_OF_IDENTITY)
        siblings[connection] = None

    def lost(self, connection: Connection) -> None:
        address = self._waiting.pop(connection, None)
        if address is not None:
            self._admission.release(address)
            return
        siblings = self._by_identity.get(connection.peer, {})
        siblings.pop(connection, None)
        if not siblings:
            self._by_identity.pop(connection.peer, None)

    def _connections(self) -> list[Connection]:
        known = [each for siblings in self._by_identity.values() for each in siblings]
        return [*self._waiting, *known]

    async def _accept(self) -> None:
        while True:
            await self._accept_one()
            # Accepting may not have waited at all; in a flood the others get their turn too.
            await asyncio.sleep(0)

    async def _accept_one(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock, remote = await loop.sock_accept(self._server)
        except OSError:  # too few file descriptors, or the other end has gone already
            self._counters[ACCEPT_FAILED] += 1
            await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
            return
        address: str = remote[0]
        refusal = self._admission.admit(address)
        if refusal is not None:
            self._counters[refusal] += 1
            sock.close()
            return
        task = asyncio.create_task(self._start(sock, address))
        self._starting[task] = None
        task.add_done_callback(self._starting.pop)

    async def _start(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(
            self._handshake(), self._handler, self, self._limits, self._counters
        )
        self._waiting[connection] = address
        timeout = self._limits.handshake_seconds if self._ssl else None
        try:
            await loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self._ssl, ssl_handshake_timeout=timeout
            )
        except OSError:  # TLS failures and time-outs included
            self._counters[TLS_FAILED] += 1
            self.lost(connection)
