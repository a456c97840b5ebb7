"""A whole simulated cluster, built from a scenario."""

from collections.abc import Callable

from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import Delete, Range, decode_operation
from pbft.apps.state_machine import Context as OperationContext
from pbft.apps.state_machine import State
from pbft.codec import decode_packet, request_digest
from pbft.config import ClientInfo, ClusterConfig, ReplicaInfo
from pbft.core.context import Signer
from pbft.messages import Envelope
from pbft.node.ports import Verifier
from pbft.simulation.checkers import Ledger
from pbft.simulation.client import SimulatedClient
from pbft.simulation.machine import Directory, Machine
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.scenario import Scenario
from pbft.simulation.signing import KeyedHashRegistry
from pbft.simulation.world import World


class WatchedStore(KeyValueStore):
    """The key-value store, which tells the checkers of every write that is applied."""

    def __init__(self, on_apply: Callable[[bytes, int], None]) -> None:
        super().__init__()
        self._on_apply = on_apply

    def apply(self, state: State, operation: bytes, context: OperationContext) -> bytes:
        if not isinstance(decode_operation(operation), Range | Delete):
            self._on_apply(operation, context.seq)
        return super().apply(state, operation, context)


class SimulatedCluster:
    """Machines, clients and the network between them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed)
        self.network = Network(self.world)
        self.ledger = Ledger()
        self._directory = Directory()
        self._verifier, make = _keys(scenario.ed25519)
        self._replica_signers = [make(b"replica %d" % i) for i in range(scenario.replicas)]
        self._client_signers = [make(b"client %d" % i) for i in range(scenario.clients)]
        self.config = self._configure()
        self.machines = [self._machine(replica) for replica in range(scenario.replicas)]
        if scenario.twin is not None:
            self.machines.append(self._machine(scenario.twin, twin=True))
        self.clients = [self._client(number) for number in range(scenario.clients)]
        self.network.observer = self._observe

    def _configure(self) -> ClusterConfig:
        replicas = tuple(
            ReplicaInfo(i, "simulated", 1 + i, signer.public_key)
            for i, signer in enumerate(self._replica_signers)
        )
        clients = tuple(
            ClientInfo(f"client-{i}", signer.public_key)
            for i, signer in enumerate(self._client_signers)
        )
        return ClusterConfig(replicas, clients, self.scenario.parameters, lab=True)

    def _machine(self, replica: int, *, twin: bool = False) -> Machine:
        faulty = dict(self.scenario.faulty).get(replica)
        twinned = twin or replica == self.scenario.twin
        correct = faulty is None and not twinned
        on_apply = self.ledger.on_apply if correct else _ignore
        machine = Machine(
            self.world,
            self.network,
            self._directory,
            self.config,
            replica,
            self._replica_signers[replica],
            self._verifier,
            lambda: WatchedStore(on_apply),
            faulty=faulty,
            twin=twin,
        )
        machine.correct = correct
        machine.on_execute = self.ledger.on_execute
        return machine

    def _client(self, number: int) -> SimulatedClient:
        return SimulatedClient(
            self.world,
            self.network,
            self._directory,
            self.config,
            number,
            self._client_signers[number],
            self._verifier,
            self.scenario.operations,
            self.scenario.keys,
        )

    def _observe(self, sender: Endpoint, _receiver: Endpoint, raw: bytes) -> None:
        if sender.startswith("c"):
            packet = decode_packet(raw)
            assert isinstance(packet, Envelope)
            self.ledger.client_sent(request_digest(packet))

    def start(self) -> None:
        """Start every machine."""
        for machine in self.machines:
            machine.start()

    @property
    def correct(self) -> list[Machine]:
        """The machines that nobody has tampered with."""
        return [machine for machine in self.machines if machine.correct]

    @property
    def settled(self) -> bool:
        """Whether every client has its outcomes and every correct machine has caught up."""
        if not all(client.done for client in self.clients):
            return False
        nodes = [machine.node for machine in self.correct]
        return all(node is not None and node.store.seq == self.ledger.last for node in nodes)


def _ignore(_operation: bytes, _seq: int) -> None:
    return None


def _keys(ed25519: bool) -> tuple[Verifier, Callable[[bytes], Signer]]:
    if ed25519:
        return Ed25519Verifier(), lambda name: Ed25519Signer(name.ljust(32, b"\0"))
    registry = KeyedHashRegistry()
    return registry, registry.signer
