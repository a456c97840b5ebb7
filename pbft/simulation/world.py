"""Virtual time: a heap of things to do, one seed, and a running hash of what happened."""

import heapq
from collections.abc import Callable
from hashlib import sha256
from random import Random

from pbft.core.context import Instant

START_OF_TIME = 1_700_000_000_000_000
"""The wall clock at virtual time 0, in µs since 1970."""


class World:
    """Runs actions in the order of their times; ties run in the order in which they were added."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0  # µs
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._added = 0
        self._trace = sha256()
        self.steps = 0

    def instant(self) -> Instant:
        """Now, as a node sees it."""
        return Instant(self.now, START_OF_TIME + self.now)

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Do `action` at `time` (µs), or now if that is past."""
        self._added += 1
        heapq.heappush(self._heap, (max(time, self.now), self._added, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Do `action` in `delay` µs."""
        self.at(self.now + delay, action)

    def record(self, *what: object) -> None:
        """Add to the trace's hash."""
        self._trace.update(repr((self.now, *what)).encode())

    @property
    def trace_hash(self) -> str:
        """16 hex digits over everything recorded so far: equal runs have equal hashes."""
        return self._trace.hexdigest()[:16]

    def run_until(self, time: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Run everything up to `time`, or until `stop` says so (asked after each action)."""
        while self._heap and self._heap[0][0] <= time:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            self.steps += 1
            if stop():
                return
        self.now = max(self.now, time)
