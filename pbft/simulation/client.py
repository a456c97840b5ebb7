"""A simulated client: the client library's session under a random key-value workload."""

from random import Random

from client.errors import ClientError, Refused
from client.session import ClientSession
from client.ticket import Completion, Ticket
from pbft.apps.kv_codec import (
    Compare,
    Delete,
    DeleteResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    decode_result,
    encode,
)
from pbft.config import ClusterConfig
from pbft.core.context import Signer
from pbft.node.ports import Verifier
from pbft.simulation.history import Action, Operation
from pbft.simulation.machine import Directory
from pbft.simulation.network import Endpoint, Network
from pbft.simulation.world import START_OF_TIME, World

MAX_THINKING = 300_000
GIVE_UP_AFTER = 20_000_000


class SimulatedClient:
    """Runs `operations` random operations one after the other, and keeps their history."""

    def __init__(
        self,
        world: World,
        network: Network,
        directory: Directory,
        config: ClusterConfig,
        number: int,
        signer: Signer,
        verifier: Verifier,
        operations: int,
        keys: int,
    ) -> None:
        self.endpoint: Endpoint = f"c{number}"
        self.history: list[Operation] = []
        self._world = world
        self._network = network
        self._directory = directory
        self._number = number
        self._random = Random(world.random.getrandbits(64))
        self._session = ClientSession(config, signer, verifier, world.random.getrandbits(64))
        self._left = operations
        self._keys = [b"key-%d" % index for index in range(keys)]
        self._written = 0
        self._waiting: dict[int, tuple[int, Action, bytes, bytes | None, bytes | None]] = {}
        self._wake: int | None = None
        directory.add_client(self.endpoint, signer.public_key)
        network.attach(self.endpoint, self._receive)
        world.after(self._random.randrange(MAX_THINKING), self._next)

    @property
    def done(self) -> bool:
        """Whether every operation has an outcome."""
        return self._left == 0 and not self._waiting

    def read_all(self) -> None:
        """At the end: one more ordered read of every key."""
        for key in self._keys:
            self._submit(Action.GET, key, None, None, encode(Range(key)), ordered=True)
        self._poll()

    def _next(self) -> None:
        if self._left == 0:
            return
        self._left -= 1
        key = self._random.choice(self._keys)
        choice = self._random.randrange(10)
        if choice < 4:
            self._put(key)
        elif choice < 5:
            self._submit(Action.DELETE, key, None, None, encode(Delete(key)), ordered=True)
        elif choice < 7:
            self._compare_and_swap(key)
        else:
            self._submit(Action.GET, key, None, None, encode(Range(key)), ordered=choice == 7)
        self._poll()

    def _value(self) -> bytes:
        self._written += 1
        return b"%d-%d" % (self._number, self._written)

    def _put(self, key: bytes) -> None:
        value = self._value()
        self._submit(Action.PUT, key, value, None, encode(Put(key, value)), ordered=True)

    def _compare_and_swap(self, key: bytes) -> None:
        known = [op.result for op in self.history if op.key == key and op.action is Action.GET]
        expected = known[-1] if known else None
        value = self._value()
        if expected is None:
            compare = Compare(key, Target.VERSION, Relation.EQUAL, 0)
        else:
            compare = Compare(key, Target.VALUE, Relation.EQUAL, expected)
        swap = Txn((compare,), (Put(key, value),), (Range(key),))
        self._submit(Action.CAS, key, value, expected, encode(swap), ordered=True)

    def _submit(
        self,
        action: Action,
        key: bytes,
        argument: bytes | None,
        expected: bytes | None,
        operation: bytes,
        *,
        ordered: bool,
    ) -> None:
        deadline = self._clock() + GIVE_UP_AFTER if action is not Action.GET else None
        read = action is Action.GET
        if read and not ordered:
            ticket = self._session.read(operation, deadline=deadline)
        else:
            ticket = self._session.submit(operation, read_only=read, deadline=deadline)
        self._waiting[ticket.number] = (self._world.now, action, key, argument, expected)

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
        ticket: Ticket = completion.ticket
        call, action, key, argument, expected = self._waiting.pop(ticket.number)
        result = completion.result
        if isinstance(result, Refused):
            raise AssertionError(f"a valid operation was refused: {result}")
        unknown = isinstance(result, ClientError)
        if not (unknown and action is Action.GET):
            self.history.append(
                Operation(
                    client=self._number,
                    call=call,
                    reply=None if unknown else self._world.now,
                    key=key,
                    action=action,
                    argument=argument,
                    expected=expected,
                    **({} if unknown else outcome(result)),  # type: ignore[arg-type]
                )
            )
        self._world.record(self.endpoint, action.name, key, repr(result))
        self._world.after(self._random.randrange(MAX_THINKING), self._next)


def outcome(raw: bytes) -> dict[str, object]:
    """The fields of a history entry that tell what came back."""
    result = decode_result(raw)
    if isinstance(result, RangeResult):
        return {"result": result.kvs[0].value if result.kvs else None}
    if isinstance(result, TxnResult):
        if result.succeeded:
            return {"succeeded": True}
        found = result.results[0]
        assert isinstance(found, RangeResult)
        return {"succeeded": False, "result": found.kvs[0].value if found.kvs else None}
    assert isinstance(result, PutResult | DeleteResult)
    return {}
