"""The clients of `pbft soak`: operations that collide, and a ledger of writes that nobody hides."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

from client.client import Client
from client.errors import ClientError
from client.kv import KV
from pbft.apps.kv_codec import prefix_end
from pbft.cli.demo_load import LoadClient
from pbft.cli.soak_checks import CheckFailed, check_history, check_ledger, last_reads
from pbft.simulation.history import Operation

LEDGER = b"ledger/"
LEDGER_PUT = "ledger put"
KEPT_EPOCHS = 4  # for so long a write of the ledger must stay there
VALUE_BYTES = (10, 10, 100, 1500)
PAGE = 500  # keys that are read at once


class Load:
    """All clients at work: for each write of the ledger, `colliding` operations that collide.

    `on_done` is called after every acknowledged operation.
    """

    def __init__(
        self, clients: list[Client], seed: int, on_done: Callable[[], None], colliding: int = 3
    ) -> None:
        self._colliding = colliding
        self.operations: Counter[str] = Counter()
        self._clients = [LoadClient(n, c, on_done, seed) for n, c in enumerate(clients)]
        self._kvs = [KV(client) for client in clients]
        self._chance = Random(seed)
        self._on_done = on_done
        self._ledger: dict[bytes, bytes] = {}
        self._state: dict[bytes, bytes | None] = {}  # of the keys that collide, at the last epoch
        self._stopped = False

    async def work(self, epoch: int) -> None:
        """Until `stop` is called and nothing is in flight. Raises CheckFailed."""
        self._stopped = False
        await asyncio.gather(*(self._work(n, epoch) for n in range(len(self._clients))))

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True

    async def _work(self, number: int, epoch: int) -> None:
        client, turn = self._clients[number], 0
        while not self._stopped:
            await client.run(1)
            if client.errors:
                raise CheckFailed(f"an operation has no known outcome: {client.errors[0]}")
            turn += 1
            if turn % self._colliding == 0:
                await self._write(number, LEDGER + b"%06d/%d/%d" % (epoch, number, turn))

    async def _write(self, number: int, key: bytes) -> None:
        value = self._chance.randbytes(self._chance.choice(VALUE_BYTES))
        try:
            await self._kvs[number].put(key, value)
        except ClientError as error:
            raise CheckFailed(f"the put of {key.decode()} has no known outcome: {error}") from None
        self._ledger[key] = value
        self.operations[LEDGER_PUT] += 1
        self._on_done()

    # -- while nobody works

    async def verify(self) -> None:
        """Read everything and judge it. Raises CheckFailed, ClientError."""
        check_ledger(self._ledger, await self._read_ledger())
        await self._clients[0].read_all()
        history = self._take_history()
        await asyncio.to_thread(check_history, self._state, history)
        self._state.update(last_reads(history))

    async def _read_ledger(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        start, end = LEDGER, prefix_end(LEDGER)
        while True:
            page = await self._kvs[0].range(start, end, limit=PAGE, ordered=True)
            found.update((kv.key, kv.value) for kv in page.kvs)
            if len(page.kvs) < PAGE:
                return found
            start = page.kvs[-1].key + b"\x00"

    def _take_history(self) -> list[Operation]:
        history = [operation for client in self._clients for operation in client.history]
        self.operations.update(operation.action.value for operation in history)
        for client in self._clients:
            client.history.clear()
            client.latencies.clear()
        return history

    async def forget(self, epoch: int) -> None:
        """Delete what the ledger has held for long, and the history up to now."""
        kv, number = self._kvs[0], epoch - KEPT_EPOCHS
        for client in range(len(self._clients)):
            old = LEDGER + b"%06d/%d/" % (max(number, 0), client)
            if number >= 0:
                await kv.delete_range(old, prefix_end(old))
                self._ledger = {k: v for k, v in self._ledger.items() if not k.startswith(old)}
        await kv.compact((await kv.put(b"settle", b"%d" % epoch)).revision)

    async def settle(self, writes: int) -> None:
        """That many writes, so that a checkpoint covers all that was done before."""
        for number in range(writes):
            await self._kvs[0].put(b"settle", b"%d" % number)
