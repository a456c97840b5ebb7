"""What every part of a core knows: who it is, who the others are, what the rules are."""

from typing import Protocol, TypeVar

from msgspec import Struct

from pbft.codec import SIGNING_DOMAIN, encode, signing_input
from pbft.config import ClusterConfig
from pbft.core.quorum import Quorum
from pbft.messages import Body, Envelope, Verified

B = TypeVar("B", bound=Body)


class Signer(Protocol):
    """A deterministic signature scheme (Ed25519; the simulator has a cheaper stand-in)."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, domain: bytes, message: bytes) -> bytes: ...


class Instant(Struct, frozen=True):
    """The time that comes with an event, in µs: `mono` never jumps, `wall` is since 1970."""

    mono: int
    wall: int


class Context:
    """One replica's fixed surroundings."""

    def __init__(self, config: ClusterConfig, replica: int, signer: Signer) -> None:
        self.config = config
        self.parameters = config.parameters
        self.quorum = Quorum(len(config.replicas))
        self.id = replica
        self.clients = config.client_keys()
        self._signer = signer

    @property
    def peers(self) -> tuple[int, ...]:
        """The ids of all other replicas."""
        return tuple(info.id for info in self.config.replicas if info.id != self.id)

    def sign(self, body: B) -> Verified[B]:
        """`body` in this replica's own envelope."""
        raw = encode(body)
        signature = self._signer.sign(SIGNING_DOMAIN, signing_input(self.config.cluster_id, raw))
        return Verified(body=body, envelope=Envelope(raw, signature))


def microseconds(milliseconds: int) -> int:
    """Configuration speaks in milliseconds, the core in microseconds."""
    return milliseconds * 1000
