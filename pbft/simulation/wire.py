"""Who is who on the simulated network, and the Transport port over it."""

from collections.abc import Callable
from typing import get_args

from pbft.codec import encode_packet
from pbft.messages import AnyBody, Envelope, Packet
from pbft.simulation.disk import Fuse
from pbft.simulation.network import Endpoint, Network

_BODIES: dict[int, str] = {body.__struct_config__.tag: body.__name__ for body in get_args(AnyBody)}
_TAG_AT = 1  # in an encoded body, after the array's head


class Directory:
    """Endpoints of replicas and clients; twins share a number, two processes may share a key."""

    def __init__(self) -> None:
        self._replicas: dict[Endpoint, int] = {}
        self._clients: dict[Endpoint, bytes] = {}

    def add_machine(self, endpoint: Endpoint, replica: int) -> None:
        """`endpoint` is a machine of `replica`."""
        self._replicas[endpoint] = replica

    def add_client(self, endpoint: Endpoint, key: bytes) -> None:
        """`endpoint` is a client with this public key."""
        self._clients[endpoint] = key

    def machines(self, replica: int) -> list[Endpoint]:
        """The endpoints of one replica."""
        return [endpoint for endpoint, number in self._replicas.items() if number == replica]

    def others(self, replica: int) -> list[Endpoint]:
        """The endpoints of all other replicas."""
        return [endpoint for endpoint, number in self._replicas.items() if number != replica]

    def clients(self, key: bytes) -> list[Endpoint]:
        """The endpoints of the clients with this key."""
        return [endpoint for endpoint, known in self._clients.items() if known == key]

    def is_client(self, endpoint: Endpoint) -> bool:
        """Whether a client is there."""
        return endpoint in self._clients

    def identity(self, endpoint: Endpoint) -> int | bytes:
        """What an authenticated channel says about the other end."""
        replica = self._replicas.get(endpoint)
        return self._clients[endpoint] if replica is None else replica


class Wire:
    """The Transport port of one machine. `sent` is told of every packet that leaves."""

    def __init__(
        self,
        endpoint: Endpoint,
        replica: int,
        network: Network,
        peers: Directory,
        fuse: Fuse,
        sent: Callable[[Packet], None],
    ) -> None:
        self._endpoint = endpoint
        self._replica = replica
        self._network = network
        self._peers = peers
        self._fuse = fuse
        self._sent = sent

    def send(self, to: int, packet: Packet) -> None:
        """To every machine that is replica `to`."""
        self._deliver(self._peers.machines(to), packet, "send")

    def broadcast(self, packet: Packet) -> None:
        """To every machine of every other replica."""
        self._deliver(self._peers.others(self._replica), packet, "send")

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        """To every client with this key."""
        self.answer(client, session, packet)

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        """To every client with this key."""
        self._deliver(self._peers.clients(client), packet, "answer")

    def _deliver(self, receivers: list[Endpoint], packet: Packet, verb: str) -> None:
        raw, kind = encode_packet(packet), f"{verb} {name_of(packet)}"
        for number, receiver in enumerate(receivers):
            self._fuse.step(kind)
            if number == 0:
                self._sent(packet)
            self._network.send(self._endpoint, receiver, raw)


def name_of(packet: Packet) -> str:
    """The message that `packet` is, or carries."""
    if isinstance(packet, Envelope):
        return _BODIES[packet.body[_TAG_AT]]
    return type(packet).__name__
