"""Requests that wait to be ordered, and what is known of clients' sessions.

A request's key is (client, session, bundle). One request per key waits, whoever sent it first; of
two with one key at most one executes, and executing either takes the key off the list (R15).
Service is round-robin among clients, and the number of waiting requests is bounded per client
(R25, R43).
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice, zip_longest

from msgspec import Struct

from pbft.core.context import Context
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import Envelope, Request, Verified

Key = tuple[bytes, int, int]
ENVELOPE_OVERHEAD_BYTES = 80
RELAY_REQUESTS, RELAY_BYTES = 32, 256 * 1024


class Standing(Enum):
    """What a request's session says about it."""

    NEW = "new"
    EXECUTED = "executed"
    EXPIRED = "expired"
    STALE = "stale"
    AHEAD = "ahead"


def key_of(request: Request) -> Key:
    """The dedupe key (R15)."""
    return request.client, request.session, request.bundle


class SessionTable:
    """A mirror of the replicated sessions: which bundles of whom have been executed (R16-R18)."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._sessions: dict[tuple[bytes, int], tuple[int, frozenset[int]]] = {}
        self._evicted: dict[bytes, int] = {}

    def update(self, facts: Iterable[SessionView | EvictedMark]) -> None:
        """Take in what executing a batch has changed."""
        for fact in facts:
            if isinstance(fact, EvictedMark):
                self._evict(fact)
            else:
                self._sessions[fact.client, fact.session] = (fact.low, frozenset(fact.executed))

    def _evict(self, fact: EvictedMark) -> None:
        self._evicted[fact.client] = max(self._evicted.get(fact.client, 0), fact.highest)
        self._sessions.pop((fact.client, fact.session), None)

    def reset(self, facts: Iterable[SessionView | EvictedMark]) -> None:
        """Start over from a whole state."""
        self._sessions.clear()
        self._evicted.clear()
        self.update(facts)

    def standing(self, request: Request) -> Standing:
        """Whether `request` may still execute."""
        session = self._sessions.get((request.client, request.session))
        if session is None:
            expired = request.session <= self._evicted.get(request.client, -1)
            return Standing.EXPIRED if expired else Standing.NEW
        low, executed = session
        if request.bundle == 0 or request.bundle in executed:
            return Standing.EXECUTED
        if request.bundle <= low:
            return Standing.STALE
        reached = max(low, min(request.acknowledged, request.bundle - 1))
        return Standing.AHEAD if request.bundle > reached + self._window else Standing.NEW


class Waiting(Struct):
    """One request on the list."""

    envelope: Envelope
    request: Request
    digest: bytes
    passed_by: int  # batches executed before it counts as starved (R19)
    proposed: bool = False


class Line(Struct):
    """What waits of one client, the oldest first, and how many bytes that is."""

    keys: dict[Key, None]
    size: int


class RequestPool:
    """The list of waiting requests."""

    def __init__(self, context: Context) -> None:
        parameters = context.parameters
        self._parameters = parameters
        self.sessions = SessionTable(parameters.client_window)
        self._waiting: dict[Key, Waiting] = {}
        self._lines: dict[bytes, Line] = {}
        self._per_client = parameters.client_window * 8
        self._bytes_per_client = 4 * parameters.max_batch_bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def add(self, message: Verified[Request], digest: bytes, executed: int) -> bool:
        """Put a new request on the list; False where it is there or its client has too many."""
        request, size = message.body, len(message.envelope.body)
        key = key_of(request)
        line = self._lines.get(request.client) or Line({}, 0)
        crowded = len(line.keys) >= self._per_client or line.size + size > self._bytes_per_client
        if key in self._waiting or crowded:
            return False
        self._lines[request.client] = line
        line.keys[key] = None
        line.size += size
        limit = executed + self._patience()
        self._waiting[key] = Waiting(message.envelope, request, digest, limit)
        return True

    def _patience(self) -> int:
        backlog = len(self._waiting) // self._parameters.max_batch_requests
        return self._parameters.fairness_batches + 2 * backlog

    def executed(self, requests: Iterable[Request]) -> None:
        """These will never execute again: neither they nor others with their keys wait (R18)."""
        for request in requests:
            self._drop(key_of(request))

    def drop_settled(self, facts: Iterable[SessionView | EvictedMark]) -> None:
        """Forget what these changes of sessions have settled without executing it (R18, R19)."""
        for client in dict.fromkeys(fact.client for fact in facts):
            for key in self._keys_of(client):
                if self.sessions.standing(self._waiting[key].request) is not Standing.NEW:
                    self._drop(key)

    def _drop(self, key: Key) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        line = self._lines[key[0]]
        del line.keys[key]
        line.size -= len(waiting.envelope.body)
        if not line.keys:
            del self._lines[key[0]]

    def starved(self, executed: int) -> bool:
        """Whether some request was passed by too often (R19); nothing else than counting."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and executed >= oldest.passed_by

    def view_changed(self, executed: int) -> None:
        """A new primary: what the old one had proposed may be lost; patience starts again."""
        patience = executed + self._patience()
        for waiting in self._waiting.values():
            waiting.proposed = False
            waiting.passed_by = patience

    def proposed(self, requests: Iterable[Request]) -> None:
        """These are in a batch that is being ordered: they are not proposed twice."""
        for request in requests:
            if waiting := self._waiting.get(key_of(request)):
                waiting.proposed = True

    def next_batch(self) -> list[Waiting]:
        """The requests of the next batch: one per client in turn until the batch is full."""
        chosen: list[Waiting] = []
        room = self._parameters.max_batch_bytes
        for waiting in self._in_turn():
            room -= len(waiting.envelope.body) + ENVELOPE_OVERHEAD_BYTES
            if (room < 0 and chosen) or len(chosen) >= self._parameters.max_batch_requests:
                break
            waiting.proposed = True
            chosen.append(waiting)
        for client in dict.fromkeys(waiting.request.client for waiting in chosen):
            self._lines[client] = self._lines.pop(client)  # served: to the end of the line
        return chosen

    def to_relay(self) -> list[Envelope]:
        """Requests that no batch holds yet, as many as a heartbeat may repeat to the primary."""
        chosen: list[Envelope] = []
        room = RELAY_BYTES
        for waiting in islice(self._in_turn(), RELAY_REQUESTS):
            room -= len(waiting.envelope.body)
            if room < 0 and chosen:
                break
            chosen.append(waiting.envelope)
        return chosen

    def _in_turn(self) -> Iterator[Waiting]:
        """What no batch holds yet: each client's oldest, then each one's second, and so on."""
        lines = [self._unproposed(line) for line in self._lines.values()]
        for row in zip_longest(*lines):
            yield from (waiting for waiting in row if waiting is not None)

    def _unproposed(self, line: Line) -> Iterator[Waiting]:
        waiting = map(self._waiting.__getitem__, line.keys)
        return (one for one in waiting if not one.proposed)

    def _keys_of(self, client: bytes) -> list[Key]:
        line = self._lines.get(client)
        return list(line.keys) if line else []
