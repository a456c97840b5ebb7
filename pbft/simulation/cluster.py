"""A whole simulated cluster, built from a scenario."""

from collections.abc import Callable

from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.apps.kv import KeyValueStore
from pbft.apps.state_machine import Context as OperationContext, State
from pbft.codec import decode_packet, request_digest
from pbft.config import ClientInfo, ClusterConfig, ReplicaInfo
from pbft.core.context import Signer
from pbft.core.quorum import Quorum
from pbft.core.replica import Replica
from pbft.messages import Envelope
from pbft.node.ports import Verifier
from pbft.simulation.checkers import Witness
from pbft.simulation.client import SimulatedClient
from pbft.simulation.double_talk import DoubleTalker
from pbft.simulation.machine import Machine
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.scenario import Scenario
from pbft.simulation.signing import KeyedHashRegistry
from pbft.simulation.wire import Directory
from pbft.simulation.world import World


class WatchedStore(KeyValueStore):
    """The key-value store, which tells the checkers of every write that is applied."""

    def __init__(self, history: int, on_apply: Callable[[bytes], None]) -> None:
        super().__init__(history)
        self._on_apply = on_apply

    def apply(self, state: State, operation: bytes, context: OperationContext) -> bytes:
        self._on_apply(operation)
        return super().apply(state, operation, context)


class SimulatedCluster:
    """Machines, clients and the network between them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(scenario.seed)
        self.network = Network(self.world)
        self.witness = Witness(self.world)
        self.ledger = self.witness.ledger
        self._directory = Directory()
        self.verifier, make = _keys(scenario.ed25519)
        self._replica_signers = [make(b"replica %d" % i) for i in range(scenario.replicas)]
        self._client_signers = [make(b"client %d" % i) for i in range(scenario.clients + 1)]
        self.config = self._configure()
        self.machines = [self._machine(replica) for replica in range(scenario.replicas)]
        self.machines += [self._machine(replica, second=True) for replica in scenario.twins]
        self.clients = [self._client(number) for number in range(scenario.clients)]
        if scenario.double_talk:
            self._add_double_talker()
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

    def _machine(self, replica: int, *, second: bool = False) -> Machine:
        faulty = dict(self.scenario.faulty).get(replica)
        machine = Machine(
            self.world,
            self.network,
            self._directory,
            self.config,
            replica,
            self._replica_signers[replica],
            self.verifier,
            lambda: WatchedStore(
                self.scenario.history, lambda operation: self.ledger.on_apply(machine, operation)
            ),
            self.witness,
            faulty=faulty,
            twinned=replica in self.scenario.twins,
            second=second,
        )
        return machine

    def _client(self, number: int) -> SimulatedClient:
        scenario = self.scenario
        shares = scenario.shared_key and number == scenario.clients - 1
        return SimulatedClient(
            self.world,
            self.network,
            self._directory,
            self.config,
            number,
            self._client_signers[number - shares],
            self.verifier,
            self.ledger,
            operations=scenario.operations,
            width=scenario.width,
            keys=scenario.keys,
        )

    def _add_double_talker(self) -> None:
        DoubleTalker(
            self.world,
            self.network,
            self._directory,
            self.config,
            self._client_signers[-1],
            self.verifier,
            self.scenario.trouble,
        )

    def _observe(self, sender: Endpoint, _receiver: Endpoint, raw: bytes) -> None:
        if self._directory.is_client(sender):
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
    def highest_view(self) -> int:
        """The highest view that a correct machine is in, or on its way to."""
        nodes = [machine.node for machine in self.correct if machine.node]
        return max((node.core.views.view for node in nodes), default=0)

    @property
    def settled(self) -> bool:
        """Whether every client has its outcomes, and all correct machines are equally far."""
        if not all(client.done for client in self.clients):
            return False
        if any(machine.forgetful for machine in self.correct):
            return False
        nodes = [machine.node for machine in self.correct if machine.node]
        if not all(node.store.seq == self.ledger.last for node in nodes):
            return False
        return len(nodes) == len(self.correct) and self._at_rest([node.core for node in nodes])

    def _at_rest(self, cores: list[Replica]) -> bool:
        """Whether all are in one view.

        Up to f may have left it, on the words of others who found it well again: these follow only
        w of them, or when they lose faith once more (R26, R35).
        """
        views = {core.views.view for core in cores if core.views.active}
        strayed = [core.views.view for core in cores if not core.views.active]
        weak = Quorum(self.scenario.replicas).w
        return len(views) == 1 and len(strayed) < weak and all(s > max(views) for s in strayed)


def _keys(ed25519: bool) -> tuple[Verifier, Callable[[bytes], Signer]]:
    if ed25519:
        return Ed25519Verifier(), lambda name: Ed25519Signer(name.ljust(32, b"\0"))
    registry = KeyedHashRegistry()
    return registry, registry.signer
