"""What the parts of a session share."""

from dataclasses import dataclass
from random import Random

from client.envelopes import Envelopes
from client.suspicion import Suspicions
from client.ticket import Output
from client.views import ViewEstimate
from pbft.config import Parameters
from pbft.core.quorum import Quorum


@dataclass(slots=True)
class Shared:
    """One cluster as one client sees it; `output` collects until the shell takes it."""

    replicas: tuple[int, ...]
    quorum: Quorum
    parameters: Parameters
    envelopes: Envelopes
    random: Random
    views: ViewEstimate
    suspicions: Suspicions
    output: Output
    token: int = 0  # a sequence number: what is known of was executed up to there

    def send_to_all(self, packet: bytes) -> None:
        """Queue `packet` for every replica."""
        for replica in self.replicas:
            self.output.send(replica, packet)

    def learn(self, seq: int) -> None:
        """A correct replica has reached `seq`, and the caller knows of something in it."""
        self.token = max(self.token, seq)

    @property
    def bundle_bytes(self) -> int:
        """How many bytes of operations are bundled at most, unless a single one is larger."""
        return self.parameters.max_batch_bytes // 4
