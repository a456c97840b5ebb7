"""What a node needs from the world: a clock and a transport. The simulator has its own of each."""

from typing import Protocol

from pbft.core.context import Instant
from pbft.messages import Packet


class Clock(Protocol):
    """Time."""

    def now(self) -> Instant:
        """Now, on both scales (µs)."""
        ...


class Transport(Protocol):
    """The way out. Nothing here blocks or fails: what cannot be sent is dropped and counted."""

    def send(self, to: int, packet: Packet) -> None:
        """To one replica."""
        ...

    def broadcast(self, packet: Packet) -> None:
        """To all other replicas."""
        ...

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        """To a client: where this session was heard from, or wherever its key is connected."""
        ...

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        """To a client: where it asked the question of this nonce, or wherever its key is."""
        ...


class Verifier(Protocol):
    """Signature verification that never raises for bad input."""

    def verify(self, public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is `public_key`'s over `message` in `domain`."""
        ...
