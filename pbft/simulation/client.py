"""A simulated client process: the client library's session under a random workload."""

from collections.abc import Callable
from random import Random

from client.session import ClientSession
from client.ticket import Completion
from pbft.config import ClusterConfig
from pbft.core.context import Signer
from pbft.node.ports import Verifier
from pbft.simulation.checkers import Ledger
from pbft.simulation.history import Action, Operation
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.wire import Directory
from pbft.simulation.workload import Call, Seen, Workload
from pbft.simulation.world import START_OF_TIME, World

MAX_THINKING = 200_000
MAX_BURST = 3  # operations that begin at the same moment, and share a bundle
MAX_DEADLINE = 3_000_000


class SimulatedClient:
    """Runs `operations` random operations, up to `width` at a time, and keeps their history.

    Some of them have a deadline. The process may be restarted: then what was under way has an
    unknown outcome, and its successor opens a session of its own, but keeps the token.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        directory: Directory,
        config: ClusterConfig,
        number: int,
        signer: Signer,
        verifier: Verifier,
        ledger: Ledger,
        *,
        operations: int,
        width: int,
        keys: int,
    ) -> None:
        self.endpoint: Endpoint = f"c{number}"
        self._world = world
        self._network = network
        self._directory = directory
        self._ledger = ledger
        self._random = random = Random(world.random.getrandbits(64))
        self._open: Callable[[], ClientSession] = lambda: ClientSession(
            config, signer, verifier, random.getrandbits(64)
        )
        self._session = self._open()
        self._token = 0  # of earlier sessions, or from others
        self._workload = Workload(number, keys, random, lambda: world.now)
        self._left = operations
        self._width = width
        self._waiting: dict[int, Call] = {}
        self._owed: dict[int, None] = {}
        self._wake: int | None = None
        directory.add_client(self.endpoint, signer.public_key)
        network.attach(self.endpoint, self._receive)
        world.after(random.randrange(MAX_THINKING), self._next)

    @property
    def history(self) -> list[Operation]:
        """What came of its operations."""
        return self._workload.history

    @property
    def failures(self) -> list[str]:
        """What it was told against the promises of its token."""
        return self._workload.failures

    @property
    def _newest(self) -> int:
        return max(self._token, self._session.token)

    @property
    def seen(self) -> Seen:
        """How far it has seen the store: its token, with what that stands for."""
        return self._workload.seen.join(Seen(self._newest))

    @property
    def done(self) -> bool:
        """Whether every operation has an outcome."""
        return self._left == 0 and not self._waiting

    # -- what it does

    def _next(self) -> None:
        room = min(self._left, self._width - len(self._waiting))
        burst = min(room, self._random.randint(1, MAX_BURST))
        for _ in range(burst):
            self._left -= 1
            rushed = self._random.random() < 0.2
            self._submit(self._workload.draw(self._newest), self._deadline() if rushed else None)
        if burst:
            self._poll()
        if self._left:
            self._world.after(self._random.randrange(MAX_THINKING), self._next)

    def _deadline(self) -> int:
        return self._clock() + self._random.randrange(MAX_DEADLINE)

    def ask(self) -> None:
        """Begin one more operation, which must have a result."""
        self._owe(self._workload.draw(self._newest))
        self._poll()

    def fill(self, entries: int) -> None:
        """Begin a write of that many entries, which must have a result."""
        self._owe(self._workload.put_many(self._workload.any_key(), entries - 1))
        self._poll()

    def finish(self) -> None:
        """Begin nothing new, but a write, a fast read and one with a token: all have results."""
        self._left = 0
        self._owe(self._workload.put(self._workload.any_key()))
        self._owe(self._workload.get(self._workload.any_key(), fast=True))
        self._owe(self._workload.get_since(self._workload.any_key(), self._newest))
        self._poll()

    def _owe(self, call: Call) -> None:
        self._owed[self._submit(call, None)] = None

    def read_all(self) -> None:
        """At the end: one more ordered read of every key."""
        for call in self._workload.read_all():
            self._owe(call)
        self._poll()

    def hand_over(self, seen: Seen) -> None:
        """Go on from where another client is."""
        self._token = max(self._token, seen.token)
        self._workload.seen = self._workload.seen.join(seen)

    def restart(self) -> None:
        """The process ends, and another one begins with the same key."""
        self._token = self._newest
        for call in self._waiting.values():
            self._workload.unknown(call)
        self._waiting.clear()
        self._session = self._open()

    def connected(self, replica: int) -> None:
        """There is a connection to `replica` again."""
        self._session.connected(replica)
        self._poll()

    def _submit(self, call: Call, deadline: int | None) -> int:
        read_only = call.entry.action is Action.GET
        if call.fast:
            token = call.seen.token if call.seen else 0
            ticket = self._session.read(call.operation, at_least=token, deadline=deadline)
        else:
            submit = self._session.submit
            ticket = submit(call.operation, read_only=read_only, deadline=deadline)
        self._waiting[ticket.number] = call
        return ticket.number

    # -- the shell of the session

    def _clock(self) -> int:
        return START_OF_TIME + self._world.now

    def _receive(self, sender: Endpoint, raw: bytes) -> None:
        replica = self._directory.identity(sender)
        assert isinstance(replica, int)
        self._session.receive(replica, raw)
        self._poll()

    def _poll(self) -> None:
        output = self._session.poll(self._clock())
        for replica, packet in output.sends:
            for endpoint in self._directory.machines(replica):
                self._network.send(self.endpoint, endpoint, packet)
        for completion in output.completions:
            self._complete(completion)
        if output.wake_at is not None:
            self._sleep_until(output.wake_at - START_OF_TIME)

    def _sleep_until(self, time: int) -> None:
        if self._wake is not None and self._world.now < self._wake <= time:
            return
        self._wake = max(time, self._world.now + 1)
        wake = self._wake
        self._world.at(wake, lambda: self._woken(wake))

    def _woken(self, time: int) -> None:
        if self._wake == time:
            self._wake = None
            self._poll()

    def _complete(self, completion: Completion) -> None:
        number = completion.ticket.number
        call = self._waiting.pop(number)
        known = self._workload.finished(call, completion.result)
        action = call.entry.action
        self._world.record(self.endpoint, action.name, call.entry.key, repr(completion.result))
        if isinstance(completion.result, bytes) and action is not Action.GET:
            self._ledger.acknowledged(call.operation)
        if known and self._left and self._random.random() < 0.3:
            self._look_again(call.entry.key)
        owed = number in self._owed
        self._owed.pop(number, None)
        if owed and not known:  # its session was lost: the next one must do
            self._world.after(1, self._try_again)

    def _look_again(self, key: bytes) -> None:
        """At once, while not all replicas are as far as those that have answered."""
        self._left -= 1
        self._submit(self._workload.get_since(key, self._newest), None)
        self._world.after(1, self._poll)

    def _try_again(self) -> None:
        self._owe(self._workload.put(self._workload.any_key()))
        self._poll()
