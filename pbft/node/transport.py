"""The Transport port over TCP: one outgoing channel per peer, clients where they are connected."""

from collections import Counter
from typing import Protocol

from pbft.codec import encode_packet
from pbft.messages import Packet

MAX_ROUTES = 65_536


class Channel(Protocol):
    """Something that takes frames without ever blocking."""

    def send(self, payload: bytes) -> bool:
        """False where it was dropped."""
        ...


class TcpTransport:
    """Knows the channels; what cannot be sent now is dropped and counted."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._replicas: dict[int, Channel] = {}
        self._clients: dict[bytes, dict[Channel, None]] = {}
        self._routes: dict[tuple[bytes, int], Channel] = {}

    # -- channels

    def add_replica(self, replica: int, channel: Channel) -> None:
        """The channel to one peer."""
        self._replicas[replica] = channel

    def add_client(self, key: bytes, channel: Channel) -> None:
        """A client has connected; one key may be connected many times."""
        self._clients.setdefault(key, {})[channel] = None

    def drop_client(self, key: bytes, channel: Channel) -> None:
        """A client's connection is gone."""
        channels = self._clients.get(key, {})
        channels.pop(channel, None)
        if not channels:
            self._clients.pop(key, None)
        for route in [route for route, known in self._routes.items() if known is channel]:
            del self._routes[route]

    def learn(self, key: bytes, session: int, channel: Channel) -> None:
        """A verified request of this session came over `channel`: its replies go there."""
        route = (key, session)
        self._routes.pop(route, None)
        self._routes[route] = channel
        if len(self._routes) > MAX_ROUTES:
            del self._routes[next(iter(self._routes))]

    # -- the port

    def send(self, to: int, packet: Packet) -> None:
        """To one replica."""
        self._put(self._replicas[to], encode_packet(packet))

    def broadcast(self, packet: Packet) -> None:
        """To all other replicas; encoded once."""
        raw = encode_packet(packet)
        for channel in self._replicas.values():
            self._put(channel, raw)

    def answer(self, client: bytes, session: int | None, packet: Packet) -> None:
        """To the client's channel for this session, or to all that its key has."""
        route = None if session is None else self._routes.get((client, session))
        channels = self._clients.get(client) if route is None else (route,)
        if not channels:
            return
        raw = encode_packet(packet)
        for channel in channels:
            self._put(channel, raw)

    def _put(self, channel: Channel, raw: bytes) -> None:
        if not channel.send(raw):
            self._counters["send-dropped"] += 1
