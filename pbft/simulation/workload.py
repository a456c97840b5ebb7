"""What one simulated client asks for: random operations on keys shared with others, each value
unique, and the history of what came of them."""

from collections.abc import Callable
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from client.errors import ClientError, Refused
from pbft.apps.kv_codec import (
    Compare,
    Delete,
    DeleteResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Result,
    Target,
    Txn,
    TxnResult,
    decode_result,
    encode,
)
from pbft.simulation.history import Action, Operation


class Seen(Struct, frozen=True):
    """How far somebody has seen the store: a token of the client library, and what it stands for.

    No read that carries the token may answer from a state with a lower `revision`, nor from one
    that was over at `since` (µs), when the newest of what was seen began.
    """

    token: int = 0
    revision: int = 0
    since: int = 0

    def join(self, other: "Seen") -> "Seen":
        """What both have seen."""
        return Seen(
            max(self.token, other.token),
            max(self.revision, other.revision),
            max(self.since, other.since),
        )


class Call(Struct, frozen=True):
    """One operation: its bytes, how it is submitted, and its place in the history."""

    operation: bytes
    entry: Operation
    fast: bool = False  # ask for a fast read
    seen: Seen | None = None  # of a read with a token


class Workload:
    """Random operations of client `number`."""

    def __init__(self, number: int, keys: int, random: Random, clock: Callable[[], int]) -> None:
        self.history: list[Operation] = []
        self.seen = Seen()  # without the token, which is the session's
        self.failures: list[str] = []
        self._number = number
        self._keys = [b"key-%d" % index for index in range(keys)]
        self._random = random
        self._clock = clock
        self._written = 0

    def draw(self, token: int) -> Call:
        """A random operation; a read may carry `token`."""
        key, choice = self._random.choice(self._keys), self._random.randrange(10)
        if choice < 3:
            return self.put(key)
        if choice < 4:
            return self._call(Action.DELETE, key, encode(Delete(key)))
        if choice < 6:
            return self._compare_and_swap(key)
        if choice == 9:
            return self.get_since(key, token)
        return self.get(key, fast=choice > 6)

    def any_key(self) -> bytes:
        """One of the keys."""
        return self._random.choice(self._keys)

    def put(self, key: bytes) -> Call:
        """A write of a new value."""
        value = self._value()
        return self._call(Action.PUT, key, encode(Put(key, value)), argument=value)

    def put_many(self, key: bytes, others: int) -> Call:
        """A write of a new value that changes as many other keys, which nobody reads, as well."""
        value = self._value()
        puts = [Put(key, value), *(Put(b"other-%d" % number, value) for number in range(others))]
        return self._call(Action.PUT, key, encode(Txn((), tuple(puts), ())), argument=value)

    def get(self, key: bytes, *, fast: bool) -> Call:
        """A read, ordered or `fast`."""
        return self._call(Action.GET, key, encode(Range(key)), fast=fast)

    def get_since(self, key: bytes, token: int) -> Call:
        """A read that need not meet more than what has been seen up to now."""
        seen = self.seen.join(Seen(token))
        call = self.get(key, fast=True)
        return replace(call, seen=seen, entry=replace(call.entry, call=seen.since))

    def read_all(self) -> list[Call]:
        """An ordered read of every key."""
        return [self.get(key, fast=False) for key in self._keys]

    def _value(self) -> bytes:
        self._written += 1
        return b"%d-%d" % (self._number, self._written)

    def _compare_and_swap(self, key: bytes) -> Call:
        known = [op.result for op in self.history if op.key == key and op.action is Action.GET]
        expected = known[-1] if known else None
        value = self._value()
        if expected is None:
            compare = Compare(key, Target.VERSION, Relation.EQUAL, 0)
        else:
            compare = Compare(key, Target.VALUE, Relation.EQUAL, expected)
        swap = encode(Txn((compare,), (Put(key, value),), (Range(key),)))
        return self._call(Action.CAS, key, swap, argument=value, expected=expected)

    def _call(
        self,
        action: Action,
        key: bytes,
        operation: bytes,
        *,
        argument: bytes | None = None,
        expected: bytes | None = None,
        fast: bool = False,
    ) -> Call:
        entry = Operation(self._number, self._clock(), None, key, action, argument, expected)
        return Call(operation, entry, fast)

    def finished(self, call: Call, result: bytes | ClientError) -> bool:
        """Keep what came of `call`; True if its outcome is known.

        A valid operation is refused only at the quota, and then it has no effect (R47).
        """
        if isinstance(result, Refused):
            if "quota" not in str(result) or call.entry.action is Action.GET:
                raise AssertionError(f"a valid operation was refused: {result}")
            return True
        if isinstance(result, ClientError):
            self.unknown(call)
            return False
        decoded = decode_result(result)
        self._saw(call, decoded.revision)
        self.history.append(replace(call.entry, reply=self._clock(), **_outcome(decoded)))
        return True

    def _saw(self, call: Call, revision: int) -> None:
        """A read with a token never goes back behind what was seen before it was called."""
        if call.seen is not None and revision < call.seen.revision:
            self.failures.append(
                f"tokens: client {self._number} has read revision {revision} with a token that "
                f"stands for {call.seen.revision}"
            )
        self.seen = self.seen.join(Seen(revision=revision, since=call.entry.call))

    def unknown(self, call: Call) -> None:
        """Nobody will tell what came of `call`: a write may yet take effect."""
        if call.entry.action is not Action.GET:
            self.history.append(call.entry)


def _outcome(result: Result) -> dict[str, object]:
    """The fields of a history entry that tell what came back."""
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
