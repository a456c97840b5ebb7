"""One simulated machine: a node as it ships, on a disk that outlives it."""

from collections import Counter
from collections.abc import Callable

from pbft.apps.state_machine import StateMachine
from pbft.codec import encode_packet
from pbft.config import ClusterConfig
from pbft.core import events
from pbft.core.context import Context, Instant, Signer
from pbft.core.invariants import Invariants
from pbft.core.output import Execute, Note
from pbft.core.records import TABLES
from pbft.faults.modes import wrap
from pbft.messages import Packet
from pbft.node.log_store import LogStore
from pbft.node.ports import Transport, Verifier
from pbft.node.turn import Halted, Node
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.world import World
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES


class Wire:
    """The Transport port over the simulated network. Twins share a replica's number."""

    def __init__(self, machine: "Machine", network: Network, peers: "Directory") -> None:
        self._machine = machine
        self._network = network
        self._peers = peers

    def send(self, to: int, packet: Packet) -> None:
        """To every machine that is replica `to`."""
        raw = encode_packet(packet)
        for endpoint in self._peers.machines(to):
            self._network.send(self._machine.endpoint, endpoint, raw)

    def broadcast(self, packet: Packet) -> None:
        """To every machine of every other replica."""
        raw = encode_packet(packet)
        for endpoint in self._peers.others(self._machine.replica):
            self._network.send(self._machine.endpoint, endpoint, raw)

    def answer(self, client: bytes, session: int | None, packet: Packet) -> None:
        """To every client with this key."""
        raw = encode_packet(packet)
        for endpoint in self._peers.clients(client):
            self._network.send(self._machine.endpoint, endpoint, raw)


def _ignore(_machine: "Machine", _what: object) -> None:
    return None


class Directory:
    """Who is who: endpoints of replicas and clients."""

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

    def identity(self, endpoint: Endpoint) -> int | bytes:
        """What an authenticated channel says about the other end."""
        replica = self._replicas.get(endpoint)
        return self._clients[endpoint] if replica is None else replica


class Watched(Node):
    """A node whose executions are reported to the checkers."""

    on_execute: Callable[[Execute], None]

    def _execute(self, command: Execute) -> None:
        super()._execute(command)
        self.on_execute(command)


class Machine:
    """Runs a node on virtual time; can be crashed and restarted."""

    def __init__(
        self,
        world: World,
        network: Network,
        directory: Directory,
        config: ClusterConfig,
        replica: int,
        signer: Signer,
        verifier: Verifier,
        application: Callable[[], StateMachine],
        *,
        faulty: str | None = None,
        twin: bool = False,
    ) -> None:
        self.replica = replica
        self.endpoint = f"{'t' if twin else 'r'}{replica}"
        self.correct = faulty is None and not twin
        self.node: Watched | None = None
        self.halted: str | None = None
        self.on_execute: Callable[[Machine, Execute], None] = _ignore
        self.on_note: Callable[[Machine, Note], None] = _ignore
        self._world = world
        self._directory = directory
        self._config = config
        self._signer = signer
        self._verifier = verifier
        self._application = application
        self._faulty = faulty
        self._log = MemoryDatabase(TABLES)
        self._state = MemoryDatabase(STATE_TABLES)
        self._wire: Transport = Wire(self, network, directory)
        self._turn_at: int | None = None
        self._life = 0
        self._wakes: dict[int, None] = {}
        self._invariants = Invariants()
        directory.add_machine(self.endpoint, replica)
        network.attach(self.endpoint, self._receive)

    def now(self) -> Instant:
        """The Clock port."""
        return self._world.instant()

    # -- life and death

    def start(self) -> None:
        """Start the node on what is on its disk."""
        context = Context(self._config, self.replica, self._signer)
        transport = self._wire
        if self._faulty:
            transport = wrap(self._faulty, context, transport, self._world.random.getrandbits(32))
        self._life += 1
        self._invariants.restarted()
        self.node = Watched(
            context,
            self._application(),
            LogStore(self._log),
            StateStore(self._state),
            self,
            transport,
            self._verifier,
            lambda note: self.on_note(self, note),
            Counter(),
        )
        self.node.on_execute = lambda command: self.on_execute(self, command)
        self._guard(lambda node: node.start(self._world.random.getrandbits(63)))

    def crash(self) -> None:
        """Lose everything that is not on the disk."""
        self.node = None
        self._turn_at = None
        self._life += 1
        self._log.crash()
        self._state.crash()

    @property
    def alive(self) -> bool:
        """Whether the node runs."""
        return self.node is not None

    # -- turns

    def _receive(self, sender: Endpoint, raw: bytes) -> None:
        if self.node is not None:
            self.node.receive(raw, self._directory.identity(sender))
            self._soon()

    def post(self, event: events.Event) -> None:
        """Tell the node what its shell would."""
        if self.node is not None:
            self.node.post(event)
            self._soon()

    def _soon(self) -> None:
        """A turn begins once the last one's disk write is over."""
        if self._turn_at is None:
            self._schedule(self._world.now + self._world.random.randint(20, 800))

    def _schedule(self, time: int) -> None:
        life = self._life
        self._turn_at = time
        self._world.at(time, lambda: self._turn(life, time))

    def _turn(self, life: int, time: int) -> None:
        if life == self._life and self._turn_at == time:
            self._turn_at = None
            self._guard(lambda node: node.run())

    def _guard(self, action: Callable[[Watched], None]) -> None:
        node = self.node
        assert node is not None
        try:
            action(node)
        except Halted as halted:
            self.halted = str(halted)
            self.crash()
            return
        self._invariants.check(node.core)
        if node.wake_at is not None:
            self._wake(node.wake_at)

    def _wake(self, time: int) -> None:
        if time not in self._wakes:
            self._wakes[time] = None
            self._world.at(time, lambda: self._wake_now(time))

    def _wake_now(self, time: int) -> None:
        self._wakes.pop(time, None)
        wake_at = self.node.wake_at if self.node else None
        if wake_at is None:
            return
        if wake_at <= self._world.now:
            self._soon()
        elif self._turn_at is None:
            self._wake(wake_at)
