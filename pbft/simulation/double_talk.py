"""A faulty client: it signs two contents under one number, and tells each half another first."""

from random import Random

from client.envelopes import Envelopes
from pbft.apps.kv_codec import Put, encode
from pbft.codec import encode_packet
from pbft.config import ClusterConfig
from pbft.core.context import Signer
from pbft.messages import Request
from pbft.node.ports import Verifier
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.wire import Directory
from pbft.simulation.world import World

PAUSE = 400_000
SESSION = 1


class DoubleTalker:
    """Writes to a key of its own, where nobody is misled by what comes of it."""

    endpoint: Endpoint = "d0"

    def __init__(
        self,
        world: World,
        network: Network,
        directory: Directory,
        config: ClusterConfig,
        signer: Signer,
        verifier: Verifier,
        until: int,
    ) -> None:
        self._world = world
        self._network = network
        self._directory = directory
        self._replicas = [replica.id for replica in config.replicas]
        self._random = Random(world.random.getrandbits(64))
        self._envelopes = Envelopes(config, signer, verifier)
        self._until = until
        self._bundle = 0
        self._said: list[bytes] = []  # the last bundle's contents; both are repeated to all
        directory.add_client(self.endpoint, signer.public_key)
        network.attach(self.endpoint, lambda _sender, _raw: None)
        world.after(self._random.randrange(PAUSE), self._talk)

    def _talk(self) -> None:
        if self._world.now >= self._until:
            return
        for packet in (self._request(0, ()), *self._said):
            self._say(packet, self._replicas)
        self._bundle += 1
        self._random.shuffle(self._replicas)
        half = len(self._replicas) // 2
        self._said = []
        for side, told in enumerate((self._replicas[:half], self._replicas[half:])):
            put = encode(Put(b"double-talk", b"%d-%d" % (self._bundle, side)))
            self._said.append(self._request(self._bundle, (put,)))
            self._say(self._said[-1], told)
        self._world.after(self._random.randrange(PAUSE), self._talk)

    def _request(self, bundle: int, operations: tuple[bytes, ...]) -> bytes:
        # It acknowledges just enough to stay inside the window; later ones answer for the earlier.
        acknowledged = max(bundle - 3, 0)
        client = self._envelopes.client
        request = Request(client, SESSION, bundle, acknowledged, False, operations)
        return encode_packet(self._envelopes.seal(request))

    def _say(self, packet: bytes, replicas: list[int]) -> None:
        for replica in replicas:
            for endpoint in self._directory.machines(replica):
                self._network.send(self.endpoint, endpoint, packet)
