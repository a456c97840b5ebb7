"""Load from several clients at once, and what is true of it afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from client.client import Client
from pbft.cli import soak_load
from pbft.cli.soak_load import LEDGER_PUT


class Load(soak_load.Load):
    """Each client by turns does something random to keys that collide, and puts a key of its own.

    The former gives a history to be judged, the latter writes that nobody hides.
    """

    def __init__(self, clients: list[Client]) -> None:
        super().__init__(clients, 0, self._count, colliding=1)
        self._moved = asyncio.Event()

    def _count(self) -> None:
        self._moved.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Goes on until the context is left; then waits until nothing is in flight."""
        working = asyncio.create_task(self.work(0))
        try:
            yield self
            self.stop()
            await working
        finally:
            working.cancel()

    async def more(self, writes: int) -> None:
        """Wait until so many more writes are acknowledged."""
        wanted = self.operations[LEDGER_PUT] + writes
        async with asyncio.timeout(60):
            while self.operations[LEDGER_PUT] < wanted:
                self._moved.clear()
                await self._moved.wait()
