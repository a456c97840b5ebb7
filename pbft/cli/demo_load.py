"""Clients at work: random key-value operations over keys that collide, with their history."""

import time
from collections.abc import Awaitable, Callable
from random import Random

from client.client import Client
from client.errors import ClientError
from client.kv import KV
from client.transactions import compare_value, compare_version, op_get, op_put
from pbft.apps.kv_codec import RangeResult
from pbft.simulation.history import Action, Operation

KEYS = tuple(b"key-%d" % number for number in range(12))


def microseconds() -> int:
    """This machine's monotonic clock."""
    return time.monotonic_ns() // 1000


class LoadClient:
    """One client, one operation at a time; `errors` are those whose outcome is not known."""

    def __init__(
        self, number: int, client: Client, on_done: Callable[[], None], seed: int = 0
    ) -> None:
        self.history: list[Operation] = []
        self.errors: list[ClientError] = []
        self.latencies: list[tuple[int, int]] = []  # (when it ended, how long it took), µs
        self._number = number
        self._kv = KV(client)
        self._random = Random(f"{seed}/{number}")
        self._on_done = on_done
        self._written = 0
        self._last_seen: dict[bytes, bytes | None] = {}

    async def run(self, operations: int) -> None:
        """Do that many random operations."""
        for _ in range(operations):
            key = self._random.choice(KEYS)
            choice = self._random.randrange(10)
            if choice < 4:
                await self._record(Action.PUT, key, self._put)
            elif choice < 5:
                await self._record(Action.DELETE, key, self._delete)
            elif choice < 7:
                await self._record(Action.CAS, key, self._swap)
            else:
                await self._record(Action.GET, key, self._get)
            self._on_done()

    async def read_all(self) -> None:
        """One ordered read of every key: what was acknowledged must be there."""
        for key in KEYS:
            await self._record(Action.GET, key, self._get_ordered)

    def _value(self) -> bytes:
        self._written += 1
        return b"%d-%d" % (self._number, self._written)

    async def _record(self, action: Action, key: bytes, call: "Call") -> None:
        writes = action in (Action.PUT, Action.CAS)
        argument = self._value() if writes else None
        expected = self._last_seen.get(key) if action is Action.CAS else None
        began = microseconds()
        try:
            succeeded, result = await call(key, argument, expected)
            reply: int | None = microseconds()
        except ClientError as error:
            self.errors.append(error)
            if action is Action.GET:
                return
            succeeded, result, reply = True, None, None
        self.history.append(
            Operation(
                self._number, began, reply, key, action, argument, expected, result, succeeded
            )
        )
        if reply is not None:
            self.latencies.append((reply, reply - began))

    async def _put(self, key: bytes, value: bytes | None, _expected: bytes | None) -> "Found":
        await self._kv.put(key, value or b"")
        return True, None

    async def _delete(self, key: bytes, _value: bytes | None, _expected: bytes | None) -> "Found":
        await self._kv.delete(key)
        return True, None

    async def _get(self, key: bytes, _value: bytes | None, _expected: bytes | None) -> "Found":
        found = (await self._kv.get(key)).value
        self._last_seen[key] = found
        return True, found

    async def _get_ordered(
        self, key: bytes, _value: bytes | None, _expected: bytes | None
    ) -> "Found":
        return True, (await self._kv.get(key, ordered=True)).value

    async def _swap(self, key: bytes, value: bytes | None, expected: bytes | None) -> "Found":
        if expected is None:
            compare = compare_version(key, "==", 0)
        else:
            compare = compare_value(key, "==", expected)
        result = await self._kv.txn((compare,), (op_put(key, value or b""),), (op_get(key),))
        if result.succeeded:
            return True, None
        found = result.results[0]
        assert isinstance(found, RangeResult)
        return False, found.kvs[0].value if found.kvs else None


Found = tuple[bool, bytes | None]
Call = Callable[[bytes, bytes | None, bytes | None], Awaitable[Found]]
