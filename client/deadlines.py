"""Deadlines of many operations under one timer."""

import heapq

from client.ticket import Ticket

_SLACK = 256  # finished entries that may lie in the heap before it is rebuilt


class Deadlines:
    """A heap of tickets by deadline; finished ones are skipped, and swept out now and then."""

    __slots__ = ("_heap", "_swept_at")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Ticket]] = []
        self._swept_at = _SLACK

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, ticket: Ticket) -> None:
        """Watch `ticket`, if it has a deadline."""
        if ticket.deadline is None:
            return
        heapq.heappush(self._heap, (ticket.deadline, ticket.number, ticket))
        if len(self._heap) > self._swept_at:
            self._sweep()

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if not entry[2].done]
        heapq.heapify(self._heap)
        self._swept_at = 2 * len(self._heap) + _SLACK

    def expired(self, now: int) -> list[Ticket]:
        """The unfinished tickets whose deadline has come, each once."""
        late = []
        while self._heap and (self._heap[0][2].done or self._heap[0][0] <= now):
            ticket = heapq.heappop(self._heap)[2]
            if not ticket.done:
                late.append(ticket)
        return late

    @property
    def next(self) -> int | None:
        """When the next one falls due."""
        return self._heap[0][0] if self._heap else None
