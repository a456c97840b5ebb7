"""The thin shell around a node: sockets and timers of one event loop, nothing else.

A turn runs once per iteration of the event loop, after everything that had arrived.
"""

import asyncio
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from crypto.signing import Signer
from network.connection import Connection
from network.dialler import Dialler
from network.limits import Limits
from network.listener import Listener, listen
from pbft.core import events
from pbft.core.context import Context, Instant
from pbft.messages import Read, Request, StateQuery, StatusQuery
from pbft.node.transport import TcpTransport
from pbft.node.turn import Halted, Node
from pbft.storage.database import CorruptRecord, StorageFailure

LIMITS = Limits(max_connections_per_identity=64)


class SystemClock:
    """The Clock port on this machine's clocks."""

    def now(self) -> Instant:
        """Now, on both scales (µs)."""
        return Instant(time.monotonic_ns() // 1000, time.time_ns() // 1000)


class Peers:
    """Handler of the channels that this replica has dialled."""

    def __init__(self, shell: "Shell") -> None:
        self._shell = shell

    def on_open(self, connection: Connection) -> None:
        """A channel to a peer is open: greet it."""
        self._shell.post(events.PeerConnected(self._shell.replica_of(connection.peer)))

    def on_frame(self, _connection: Connection, _payload: bytes) -> None:
        """Peers speak over the channels that they have dialled themselves."""
        self._shell.counters["frame-on-outgoing-channel"] += 1

    def on_close(self, connection: Connection, _reason: str) -> None:
        """A hint that the peer may be down (R26)."""
        self._shell.post(events.PeerDisconnected(self._shell.replica_of(connection.peer)))


class Shell:
    """Runs one node on the current event loop; handler of the channels that others have dialled."""

    def __init__(
        self,
        context: Context,
        signer: Signer,
        transport: TcpTransport,
        counters: Counter[str],
        on_failure: Callable[[str], None],
    ) -> None:
        self._context = context
        self._signer = signer
        self._transport = transport
        self.counters = counters
        self._on_failure = on_failure
        self._replicas = {info.public_key: info.id for info in context.config.replicas}
        self._loop = asyncio.get_running_loop()
        self._node: Node | None = None
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._background: asyncio.TimerHandle | None = None
        self._wakes_at = 0  # µs, while there is a timer
        self._listener: Listener | None = None
        self._diallers: dict[bytes, Dialler] = {}

    async def start(self, node: Node) -> None:
        """Listen, dial the peers, start the node. Raises OSError if the address cannot be had."""
        self._node = node
        me = self._context.config.replicas[self._context.id]
        cluster = self._context.config.cluster_id
        signer, counters = self._signer, self.counters
        self._listener = await listen(
            me.host, me.port, signer, cluster, self._authorize, self, LIMITS, counters
        )
        peers = Peers(self)
        for info in self._context.config.replicas:
            if info.id == me.id:
                continue
            dialler = Dialler(
                info.host, info.port, info.public_key, signer, cluster, peers, LIMITS, counters
            )
            self._diallers[info.public_key] = dialler
            self._transport.add_replica(info.id, dialler)
        self._guard(lambda: node.start(secrets.randbits(63)))

    async def stop(self) -> None:
        """Close every channel, then the node."""
        for handle in (self._turn, self._timer, self._background):
            if handle is not None:
                handle.cancel()
        for dialler in self._diallers.values():
            dialler.close()
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
        node, self._node = self._node, None
        if node is not None:
            node.close()

    def replica_of(self, key: bytes) -> int:
        """The id of the replica with this public key."""
        return self._replicas[key]

    def _authorize(self, key: bytes) -> bool:
        return key in self._replicas or key in self._context.clients

    # -- channels that others have dialled

    def on_open(self, connection: Connection) -> None:
        """A client can be answered from now on; a peer that was down is back, and is dialled."""
        if connection.peer not in self._replicas:
            self._transport.add_client(connection.peer, connection)
        elif dialler := self._diallers.get(connection.peer):
            dialler.hasten()

    def on_frame(self, connection: Connection, payload: bytes) -> None:
        """Keep it for the next turn."""
        if self._node is None:
            return
        replica = self._replicas.get(connection.peer)
        if replica is None:
            self._node.receive(
                payload, connection.peer, lambda event: self._learn(connection, event)
            )
        else:
            self._node.receive(payload, replica)
        self._soon()

    def _learn(self, connection: Connection, event: events.Event) -> None:
        """Something that was verified came from a client: that is where it is answered."""
        body = event.message.body if isinstance(event, events.Received) else None
        if isinstance(body, Request):
            self._transport.learn_session(body.client, body.session, connection)
        elif isinstance(body, Read | StatusQuery | StateQuery):
            self._transport.learn_question(body.client, body.nonce, connection)

    def on_close(self, connection: Connection, _reason: str) -> None:
        """A client is gone."""
        if connection.peer not in self._replicas:
            self._transport.drop_client(connection.peer, connection)

    # -- turns

    def post(self, event: events.Event) -> None:
        """Tell the node something."""
        if self._node is not None:
            self._node.post(event)
            self._soon()

    def _soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._run)

    def _run(self) -> None:
        """One turn: what it sends leaves, and what has arrived joins, before the next one."""
        self._turn = None
        if self._node is not None:
            self._guard(self._node.turn)
        if self._node is not None and self._node.waiting:
            self._soon()

    def between_turns(self, work: Callable[[], float]) -> None:
        """Do `work` now and then as long as the node runs; it says how long (s) to rest then."""

        def again() -> None:
            if self._node is not None:
                self._guard(once)

        def once() -> None:
            self._background = self._loop.call_later(work(), again)

        self._background = self._loop.call_later(0, again)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is: half a turn must not go on (R47)
            self._node = None  # nothing that it held back may leave any more
            self._on_failure(_reason(error))
            return
        self._set_timer()

    def _set_timer(self) -> None:
        """A timer that runs already is left alone unless it would end too late: that is cheaper."""
        wake_at = self._node.wake_at if self._node else None
        if wake_at is None or self._wakes_by(wake_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, wake_at / 1e6 - time.monotonic())
        self._timer, self._wakes_at = self._loop.call_later(delay, self._wake), wake_at

    def _wakes_by(self, wake_at: int) -> bool:
        return self._timer is not None and self._wakes_at <= wake_at

    def _wake(self) -> None:
        self._timer = None
        self._soon()


def _reason(error: Exception) -> str:
    """One sentence; for what nobody has foreseen, with the place where it happened."""
    if isinstance(error, CorruptRecord):
        return (
            f"the disk does not hold what was written to it ({error}): start the replica again, "
            "and it examines its files and repairs what can be repaired; if it happens again, "
            "replace the disk"
        )
    if isinstance(error, Halted | StorageFailure):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"{type(error).__name__} in {where}: {error}"
