"""One simulated machine: a node as it ships, on a disk that outlives it."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from pbft.apps.state_machine import StateMachine
from pbft.config import ClusterConfig
from pbft.core import events
from pbft.core.context import Context, Instant, Signer
from pbft.core.invariants import Invariants
from pbft.core.output import BeginTransfer, Execute, FinishTransfer, InstallNodes, Note
from pbft.core.parts import UNCONFIRMED
from pbft.core.records import TABLES
from pbft.faults.modes import wrap
from pbft.messages import Packet, StateSummary
from pbft.node.log_store import LogStore
from pbft.node.ports import Transport, Verifier
from pbft.node.turn import Halted, Node
from pbft.simulation.disk import Disk, Fuse, PowerCut
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.wire import Directory, Wire
from pbft.simulation.world import World
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

FLUSH = "state flush"
_TRANSFERS = {
    BeginTransfer: "transfer begin",
    InstallNodes: "transfer install",
    FinishTransfer: "transfer finish",
}


class Observer:
    """What the checkers want to know of a machine; here, nothing."""

    def on_execute(self, machine: "Machine", command: Execute) -> None:
        """A batch was executed whole."""

    def on_checkpoint(self, machine: "Machine", summary: StateSummary) -> None:
        """The state was digested."""

    def on_note(self, machine: "Machine", note: Note) -> None:
        """The node has something to say."""

    def on_sent(self, machine: "Machine", packet: Packet) -> None:
        """A packet has left."""

    def on_crash(self, machine: "Machine") -> None:
        """The process has ended, wherever it was."""

    def on_forget(self, machine: "Machine") -> None:
        """Its disks are older ones, or empty."""


class Watched(Node):
    """A node whose executions and checkpoints are reported, and which power cuts can interrupt."""

    fuse: Fuse
    disk: Disk
    on_execute: Callable[[Execute], None]
    on_checkpoint: Callable[[StateSummary], None]

    executing: Execute | None = None

    def _execute(self, command: Execute) -> None:
        self.fuse.step("execution, before")
        self.executing = command
        super()._execute(command)
        self.executing = None
        self.on_execute(command)
        self.fuse.step("execution, after")

    def _checkpoint(self) -> StateSummary:
        summary = super()._checkpoint()
        self.on_checkpoint(summary)
        return summary

    def _transfer(self, command: BeginTransfer | InstallNodes | FinishTransfer) -> None:
        self.disk.purpose = _TRANSFERS[type(command)]
        super()._transfer(command)
        self.disk.purpose = FLUSH


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
        observer: Observer,
        *,
        faulty: str | None = None,
        twinned: bool = False,
        second: bool = False,
    ) -> None:
        """`twinned` machines share their replica's number and key; one of them is the `second`."""
        self.replica = replica
        self.endpoint: Endpoint = f"{'t' if second else 'r'}{replica}"
        self.correct = faulty is None and not twinned
        self.twinned = twinned
        self.node: Watched | None = None
        self.halted: str | None = None
        self._forgetful = False
        self.on_power_cut: Callable[[Machine], None] = lambda _machine: None
        self._world = world
        self._directory = directory
        self._config = config
        self._signer = signer
        self._verifier = verifier
        self._application = application
        self._observer = observer
        self._faulty = faulty
        self._random = Random(world.random.getrandbits(64))
        self._fuse = Fuse()
        self.log_disk, self.state_disk = self._empty_disks()
        self._wire: Transport = Wire(
            self.endpoint,
            replica,
            network,
            directory,
            self._fuse,
            lambda packet: observer.on_sent(self, packet),
        )
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
        self._life += 1
        self._invariants.restarted()
        self.node = self._make()
        if self.twinned:
            # A twin does not heed what the others remember of its namesake's starts (R41).
            self.node.core.incarnations.confirmed = True
            self.node.core.gate.release(UNCONFIRMED)
        self._guard(lambda node: node.start(self._random.getrandbits(63)))

    def _make(self) -> Watched:
        context = Context(self._config, self.replica, self._signer)
        transport, counters = self._wire, Counter[str]()
        if self._faulty:
            transport = wrap(self._faulty, context, transport, counters)
        node = Watched(
            context,
            self._application(),
            LogStore(self.log_disk),
            StateStore(self.state_disk),
            self,
            transport,
            self._verifier,
            lambda note: self._observer.on_note(self, note),
            counters,
        )
        node.fuse, node.disk = self._fuse, self.state_disk
        self.state_disk.purpose = FLUSH
        node.on_execute = lambda command: self._observer.on_execute(self, command)
        node.on_checkpoint = lambda summary: self._observer.on_checkpoint(self, summary)
        return node

    def cut_power_after(self, steps: int | None) -> None:
        """Crash inside a turn: at the `steps`-th commit, packet or execution from now; or never."""
        self._fuse.light(steps)

    def crash(self) -> None:
        """Lose everything that is not on the disk."""
        unfinished = self.node.executing if self.node else None
        self.node = None
        self._turn_at = None
        self._life += 1
        self._fuse.light(None)
        for disk in (self.log_disk, self.state_disk):
            disk.crash()
        if unfinished is not None and StateStore(self.state_disk).seq >= unfinished.seq:
            self._observer.on_execute(self, unfinished)  # flushed: it will not execute it again
        self._world.record(self.endpoint, "crash", self.halted)
        self._observer.on_crash(self)
        self.state_disk.crash()  # nobody reads there any more

    @property
    def points(self) -> Sequence[str]:
        """The kind of every commit, packet and execution so far: where it could have crashed."""
        return self._fuse.passed

    # -- what only a disk can do to a replica

    def _empty_disks(self) -> tuple[Disk, Disk]:
        log = Disk(TABLES, self._fuse, "log commit")
        return log, Disk(STATE_TABLES, self._fuse, FLUSH)

    def image(self) -> tuple[Disk, Disk]:
        """A copy of the disks of a machine that is off."""
        return self.log_disk.copy(), self.state_disk.copy()

    def replace_disks(self, image: tuple[Disk, Disk] | None) -> None:
        """Start next time from an older image, or from nothing: it may have forgotten (R41)."""
        assert not self.alive
        self.log_disk, self.state_disk = self._empty_disks() if image is None else image
        self._forgetful = True
        self._observer.on_forget(self)

    @property
    def forgetful(self) -> bool:
        """Whether it counts as faulty, since what it has forgotten may still matter."""
        core = self.node.core if self.node else None
        if core and core.incarnations.confirmed and core.amnesia.goal is None:
            self._forgetful = False
        return self._forgetful

    @property
    def alive(self) -> bool:
        """Whether the node runs."""
        return self.node is not None

    def accused(self) -> list[int]:
        """Whom the evidence on its disk convicts."""
        return [record.culprit for record in LogStore(self.log_disk).restore().evidence]

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
        except PowerCut:
            self.crash()
            self.on_power_cut(self)
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
