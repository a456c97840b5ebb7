"""A faulty mode that can be turned on and off while the node runs."""

from pbft.messages import Packet
from pbft.node.ports import Transport


class Switch:
    """Passes everything to the honest transport, or while it is on, to the faulty one."""

    def __init__(self, honest: Transport, faulty: Transport) -> None:
        self._honest = honest
        self._faulty = faulty
        self.on = False

    @property
    def _chosen(self) -> Transport:
        return self._faulty if self.on else self._honest

    def send(self, to: int, packet: Packet) -> None:
        """To one replica."""
        self._chosen.send(to, packet)

    def broadcast(self, packet: Packet) -> None:
        """To all other replicas."""
        self._chosen.broadcast(packet)

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        """To a client's session."""
        self._chosen.reply(client, session, packet)

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        """To a client's question."""
        self._chosen.answer(client, nonce, packet)

    def toggle(self) -> None:
        """Turn it on, or off."""
        self.on = not self.on
