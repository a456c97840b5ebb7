"""The Transport port over TCP: one outgoing channel per peer, clients where they are connected."""

from collections import Counter
from typing import Protocol

from pbft.codec import encode_packet
from pbft.messages import Packet

MAX_SESSIONS = 65_536
MAX_QUESTIONS = 4_096

Routes = dict[tuple[bytes, int], "Channel"]


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
        self._sessions: Routes = {}
        self._questions: Routes = {}

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
        for routes in (self._sessions, self._questions):
            for route in [route for route, known in routes.items() if known is channel]:
                del routes[route]

    def learn_session(self, key: bytes, session: int, channel: Channel) -> None:
        """A verified request of this session came over `channel`: its replies go there."""
        _learn(self._sessions, (key, session), channel, MAX_SESSIONS)

    def learn_question(self, key: bytes, nonce: int, channel: Channel) -> None:
        """A verified question came over `channel`: its one answer goes there."""
        _learn(self._questions, (key, nonce), channel, MAX_QUESTIONS)

    # -- the port

    def send(self, to: int, packet: Packet) -> None:
        """To one replica."""
        self._put(self._replicas[to], encode_packet(packet))

    def broadcast(self, packet: Packet) -> None:
        """To all other replicas; encoded once."""
        raw = encode_packet(packet)
        for channel in self._replicas.values():
            self._put(channel, raw)

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        """To the client's channel for this session, or to all that its key has."""
        self._tell(client, self._sessions.get((client, session)), packet)

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        """To the client's channel for this question, or to all that its key has."""
        self._tell(client, self._questions.pop((client, nonce), None), packet)

    def _tell(self, client: bytes, route: Channel | None, packet: Packet) -> None:
        channels = self._clients.get(client) if route is None else (route,)
        if not channels:
            return
        raw = encode_packet(packet)
        for channel in channels:
            self._put(channel, raw)

    def _put(self, channel: Channel, raw: bytes) -> None:
        if not channel.send(raw):
            self._counters["send-dropped"] += 1


def _learn(routes: Routes, place: tuple[bytes, int], channel: Channel, most: int) -> None:
    routes.pop(place, None)
    routes[place] = channel
    if len(routes) > most:
        del routes[next(iter(routes))]
