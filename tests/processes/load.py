"""Load from several clients at once, and what is true of it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from client.client import Client
from client.errors import ClientError
from client.kv import KV
from pbft.cli.demo_load import LoadClient
from pbft.simulation.linearizability import Verdict, check

UNIQUE = b"unique/"


class Load:
    """Each client by turns does something random to keys that collide, and puts a key of its own.

    The former gives a history to be judged, the latter writes that nobody hides.
    """

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self._random = [LoadClient(n, client, lambda: None) for n, client in enumerate(clients)]
        self._stopped = False
        self._moved = asyncio.Condition()
        self.acknowledged: dict[bytes, bytes] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Goes on until the context is left; then waits until nothing is in flight."""
        tasks = [asyncio.create_task(self._run(number)) for number in range(len(self._clients))]
        try:
            yield self
            self._stopped = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _run(self, number: int) -> None:
        kv, turn = KV(self._clients[number]), 0
        while not self._stopped:
            await self._random[number].run(1)
            key, value = UNIQUE + b"%d/%d" % (number, turn), b"%d" % turn
            turn += 1
            try:
                await kv.put(key, value)
            except ClientError:
                continue  # not acknowledged: it may be there or not
            async with self._moved:
                self.acknowledged[key] = value
                self._moved.notify_all()

    async def more(self, writes: int) -> None:
        """Wait until so many more writes are acknowledged."""
        wanted = len(self.acknowledged) + writes
        async with self._moved:
            await asyncio.wait_for(
                self._moved.wait_for(lambda: len(self.acknowledged) >= wanted), timeout=60
            )

    async def verify(self) -> None:
        """Every acknowledged write is readable, and the histories are linearizable."""
        found = await KV(self._clients[0]).prefix(UNIQUE, ordered=True)
        there = {kv.key: kv.value for kv in found.kvs}
        lost = [key for key, value in self.acknowledged.items() if there.get(key) != value]
        assert lost == []
        await self._random[0].read_all()
        history = [operation for client in self._random for operation in client.history]
        judgement = check(history)
        assert judgement.verdict is Verdict.LINEARIZABLE, str(judgement)
