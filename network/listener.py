"""Accepts connections, bounds them, and authenticates whoever is on the other end."""

import asyncio
import os
import socket
from collections.abc import Callable

from crypto.signing import Ed25519Verifier, Signer
from network.admission import TOO_MANY_UNAUTHENTICATED, Admission
from network.connection import Connection, ConnectionHandler
from network.handshake import NONCE_BYTES, ListenerHandshake
from network.limits import Counters, Limits

TOO_MANY_OF_IDENTITY = "too-many-of-identity"
ACCEPT_FAILED = "accept-failed"

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

    return Listener(server, handshake, handler, limits, counters)


class Listener:
    """An open port. Made by `listen`."""

    def __init__(
        self,
        server: socket.socket,
        handshake: Callable[[], ListenerHandshake],
        handler: ConnectionHandler,
        limits: Limits,
        counters: Counters,
    ) -> None:
        self.port: int = server.getsockname()[1]
        self._server = server
        self._handshake = handshake
        self._handler = handler
        self._limits = limits
        self._counters = counters
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
        self._share_out(siblings)

    def lost(self, connection: Connection) -> None:
        address = self._waiting.pop(connection, None)
        if address is not None:
            self._admission.release(address)
        elif connection.authenticated:
            self._lost_one_of(connection.peer, connection)

    def _lost_one_of(self, identity: bytes, connection: Connection) -> None:
        siblings = self._by_identity.get(identity, {})
        siblings.pop(connection, None)
        if siblings:
            self._share_out(siblings)
        else:
            self._by_identity.pop(identity, None)

    def _share_out(self, siblings: dict[Connection, None]) -> None:
        """However many connections an identity has, it is served like any other (R43)."""
        for connection in siblings:
            connection.frames_in_turn = max(1, self._limits.frames_in_turn // len(siblings))

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
        if refusal is not None and self._make_room(refusal, address):
            refusal = self._admission.admit(address)
        if refusal is not None:
            self._counters[refusal] += 1
            sock.close()
            return
        task = asyncio.create_task(self._start(sock, address))
        self._starting[task] = None
        task.add_done_callback(self._starting.pop)

    def _make_room(self, refusal: str, address: str) -> bool:
        """Whoever waits longest goes: to authenticate takes no longer than two round trips."""
        for connection, place in self._waiting.items():
            if refusal == TOO_MANY_UNAUTHENTICATED or place == address:
                self._admission.release(self._waiting.pop(connection))
                connection.refuse(refusal)
                return True
        return False

    async def _start(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection(
            self._handshake(), self._handler, self, self._limits, self._counters
        )
        self._waiting[connection] = address
        try:
            await loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:  # the other end has gone already
            self._counters[ACCEPT_FAILED] += 1
            self.lost(connection)
