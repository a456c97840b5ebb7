"""The client's connections to the replicas."""

import asyncio
from collections import Counter
from collections.abc import Callable

from crypto.signing import Signer
from network.connection import Connection
from network.dialler import Dialler
from network.limits import Limits
from pbft.config import ClusterConfig


class Links:
    """One connection per replica, dialled again whenever it is lost. Needs a running event loop."""

    def __init__(
        self,
        config: ClusterConfig,
        signer: Signer,
        on_open: Callable[[int], None],
        on_packet: Callable[[int, bytes], None],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._replica_of = {replica.public_key: replica.id for replica in config.replicas}
        self._on_open = on_open
        self._on_packet = on_packet
        self._open: dict[int, Connection] = {}
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        limits = Limits()
        self._diallers = {
            replica.id: Dialler(
                replica.host,
                replica.port,
                replica.public_key,
                signer,
                config.cluster_id,
                self,
                limits,
                self.counters,
            )
            for replica in config.replicas
        }

    @property
    def connected(self) -> frozenset[int]:
        """The replicas to which there is an authenticated connection."""
        return frozenset(self._open)

    def send(self, replica: int, packet: bytes) -> None:
        """Send `packet`, or drop it: the session knows when to send it again."""
        self._diallers[replica].send(packet)

    async def close(self) -> None:
        """Close all connections and wait until they are gone."""
        for dialler in self._diallers.values():
            dialler.close()
        await self._all_closed.wait()

    # --- called by the network ---

    def on_open(self, connection: Connection) -> None:
        replica = self._replica_of[connection.peer]
        self._open[replica] = connection
        self._all_closed.clear()
        self._on_open(replica)

    def on_frame(self, connection: Connection, payload: bytes) -> None:
        self._on_packet(self._replica_of[connection.peer], payload)

    def on_close(self, connection: Connection, reason: str) -> None:
        replica = self._replica_of[connection.peer]
        if self._open.get(replica) is connection:
            del self._open[replica]
        if not self._open:
            self._all_closed.set()
