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


class RequestPool:
    """The list of waiting requests."""

    def __init__(self, context: Context) -> None:
        parameters = context.parameters
        self._parameters = parameters
        self.sessions = SessionTable(parameters.client_window)
        self._waiting: dict[Key, Waiting] = {}
        self._queues: dict[bytes, dict[Key, None]] = {}
        self._per_client = parameters.client_window * 8

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def envelope(self, key: Key) -> Envelope | None:
        """The waiting request with this key."""
        waiting = self._waiting.get(key)
        return waiting.envelope if waiting else None

    def add(self, message: Verified[Request], digest: bytes, executed: int) -> bool:
        """Put a new request on the list; False where it is there or its client has too many."""
        request = message.body
        key = key_of(request)
        queue = self._queues.setdefault(request.client, {})
        if key in self._waiting or len(queue) >= self._per_client:
            return False
        queue[key] = None
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

    def drop_settled(self) -> None:
        """After a jump of the state: forget what it has settled."""
        for key, waiting in list(self._waiting.items()):
            if self.sessions.standing(waiting.request) is not Standing.NEW:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        if self._waiting.pop(key, None) is None:
            return
        queue = self._queues[key[0]]
        del queue[key]
        if not queue:
            del self._queues[key[0]]

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
        self._rotate()
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
        queues = [self._unproposed(client) for client in self._queues]
        for row in zip_longest(*queues):
            yield from (waiting for waiting in row if waiting is not None)

    def _unproposed(self, client: bytes) -> Iterator[Waiting]:
        waiting = map(self._waiting.__getitem__, self._queues[client])
        return (one for one in waiting if not one.proposed)

    def _rotate(self) -> None:
        if first := next(iter(self._queues), None):
            self._queues[first] = self._queues.pop(first)
