"""Clients' sessions as replicated state: what was executed, and the results not yet acknowledged.

Four kinds of records in the sessions map; numbers are 8 bytes, big-endian:

    c <client>                     the client's highest evicted session number, kept for ever (R45)
    h <client> <session>           Header
    o <client> <session> <bundle>  Outcome of an executed bundle above the session's low mark
    s                              where the search for idle sessions goes on: a header's key

Session numbers begin at 1.
"""

from bisect import bisect_right
from itertools import islice

import msgspec
from msgspec import Struct

from pbft.apps.state_machine import State
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import Results

CLIENTS, CLIENTS_END = b"c", b"d"
HEADERS, HEADERS_END = b"h", b"i"
OUTCOMES = b"o"
SEARCHED = b"s"
_KEY_BYTES = 32
SEARCH_STEP = 64  # sessions that one search for idle ones looks at


class Header(Struct, frozen=True, array_like=True):
    """A session without its results."""

    low: int  # bundles up to here are acknowledged
    used: int  # the sequence number at which it last executed something
    opening: bytes  # the digest of the request that opened it
    executed: tuple[int, ...]  # bundles above `low`, in order
    sizes: tuple[int, ...]  # bytes of their outcomes
    time: int  # the agreed time (µs) at which it last executed something


class Outcome(Struct, frozen=True, array_like=True):
    """What came of one bundle: of the request with that digest, executed at `seq`."""

    request: bytes
    results: Results
    seq: int


Key = tuple[bytes, int]

_encode = msgspec.msgpack.Encoder().encode
_headers = msgspec.msgpack.Decoder(Header)
_outcomes = msgspec.msgpack.Decoder(Outcome)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _header_key(key: Key) -> bytes:
    return HEADERS + key[0] + _number(key[1])


def _outcome_key(key: Key, bundle: int) -> bytes:
    return OUTCOMES + key[0] + _number(key[1]) + _number(bundle)


def _key_of(raw: bytes) -> Key:
    return raw[1 : 1 + _KEY_BYTES], int.from_bytes(raw[1 + _KEY_BYTES :], "big")


class Sessions:
    """The table. `state` is the sessions map; at most `per_client` sessions of one client live."""

    def __init__(self, state: State, per_client: int) -> None:
        self._state = state
        self._per_client = per_client
        self._headers: dict[Key, Header] = {}
        self._kept: dict[bytes, int] = {}
        self._touched: dict[Key, None] = {}
        self._evictions: list[EvictedMark] = []

    def reload(self) -> None:
        """The map was replaced as a whole: forget what was read from the old one."""
        self._headers.clear()
        self._kept.clear()

    def header(self, key: Key) -> Header | None:
        """The session's header, or None where there is no such session."""
        if (known := self._headers.get(key)) is not None:
            return known
        raw = self._state.get(_header_key(key))
        if raw is None:
            return None
        return self._headers.setdefault(key, _headers.decode(raw))

    def _save(self, key: Key, header: Header) -> Header:
        self._headers[key] = header
        self._touched[key] = None
        return header

    def _write_back(self) -> None:
        """A header may change several times in a batch: it is written once, at the end."""
        for key in self._touched:
            self._state.put(_header_key(key), _encode(self._headers[key]))

    def highest_evicted(self, client: bytes) -> int:
        """Numbers up to this one open no session any more; 0 where none was evicted yet."""
        raw = self._state.get(CLIENTS + client)
        return 0 if raw is None else int.from_bytes(raw, "big")

    def is_free(self, key: Key) -> bool:
        """Whether a session may be opened under this number."""
        return key[1] > self.highest_evicted(key[0]) and self.header(key) is None

    def lowest_free(self, client: bytes) -> int:
        """The lowest number under which `client` may open a session."""
        number = self.highest_evicted(client) + 1
        while self.header((client, number)) is not None:
            number += 1
        return number

    # -- opening and evicting

    def open(self, key: Key, request: bytes, seq: int, time: int) -> None:
        """Open a free session; the client's least recently used one makes room for it."""
        live = self._sessions_of(key[0])
        if len(live) >= self._per_client:
            self._evict(min(live, key=lambda pair: (pair[1].used, pair[0][1])))
        self._save(key, Header(0, seq, request, (), (), time))

    def _sessions_of(self, client: bytes) -> list[tuple[Key, Header]]:
        self._write_back()
        start, end = HEADERS + client, HEADERS + client + b"\xff" * 9
        return [(_key_of(key), _headers.decode(raw)) for key, raw in self._state.range(start, end)]

    def evict_idle(self, since: int) -> None:
        """Evict those of the next few sessions that were last used before `since` (agreed µs).

        A round over all sessions takes as many calls as it must: each is bounded, and where the
        next one goes on is replicated state.
        """
        self._write_back()
        start = self._state.get(SEARCHED) or HEADERS
        found = self._state.range(start, HEADERS_END)
        looked_at = [(key, _headers.decode(raw)) for key, raw in islice(found, SEARCH_STEP)]
        for raw_key, header in looked_at:
            if header.time < since:
                self._evict((_key_of(raw_key), header))
        self._search_from(looked_at[-1][0] + b"\0" if len(looked_at) == SEARCH_STEP else None)

    def _search_from(self, key: bytes | None) -> None:
        if key is not None:
            self._state.put(SEARCHED, key)
        elif self._state.get(SEARCHED) is not None:
            self._state.delete(SEARCHED)

    def _evict(self, victim: tuple[Key, Header]) -> None:
        key, header = victim
        client, number = key
        self._keep(client, -sum(header.sizes))
        for bundle in header.executed:
            self._state.delete(_outcome_key(key, bundle))
        self._state.delete(_header_key(key))
        self._headers.pop(key, None)
        self._touched.pop(key, None)
        highest = max(self.highest_evicted(client), number)
        self._state.put(CLIENTS + client, _number(highest))
        self._evictions.append(EvictedMark(client, number, highest))

    # -- executing

    def acknowledge(self, key: Key, header: Header, upto: int) -> Header:
        """Free the results of bundles up to `upto`, and let the window begin after it (R16)."""
        if upto <= header.low:
            return header
        freed = bisect_right(header.executed, upto)
        for bundle in header.executed[:freed]:
            self._state.delete(_outcome_key(key, bundle))
        self._keep(key[0], -sum(header.sizes[:freed]))
        kept = header.executed[freed:], header.sizes[freed:]
        return self._save(key, Header(upto, header.used, header.opening, *kept, header.time))

    def record(self, key: Key, bundle: int, outcome: Outcome, seq: int, time: int) -> None:
        """Keep what came of a bundle that was executed at `seq`, at the agreed `time` (µs)."""
        header = self.header(key)
        assert header is not None, "only bundles of a live session execute"
        raw = _encode(outcome)
        self._state.put(_outcome_key(key, bundle), raw)
        self._keep(key[0], len(raw))
        at = bisect_right(header.executed, bundle)
        executed = (*header.executed[:at], bundle, *header.executed[at:])
        sizes = (*header.sizes[:at], len(raw), *header.sizes[at:])
        self._save(key, Header(header.low, seq, header.opening, executed, sizes, time))

    def room(self, key: Key, most: int, wanted: int) -> int:
        """Of `most` bytes, those that may still be kept for this session's client.

        A process that has ended acknowledges nothing any more: where fewer than `wanted` are left,
        the client's other sessions that keep results go, the least recently used first.
        """
        if most - self.kept(key[0]) < wanted:
            others = [(k, h) for k, h in self._sessions_of(key[0]) if k != key and h.executed]
            for victim in sorted(others, key=lambda pair: (pair[1].used, pair[0][1])):
                self._evict(victim)
                if most - self.kept(key[0]) >= wanted:
                    break
        return most - self.kept(key[0])

    def kept(self, client: bytes) -> int:
        """Bytes of the results that `client` has not acknowledged, in all its sessions."""
        known = self._kept.get(client)
        if known is None:
            headers = (header for _, header in self._sessions_of(client))
            known = self._kept[client] = sum(sum(header.sizes) for header in headers)
        return known

    def _keep(self, client: bytes, more: int) -> None:
        if client in self._kept:
            self._kept[client] += more

    def outcome(self, key: Key, bundle: int) -> Outcome | None:
        """What came of a bundle, if it was executed and is not acknowledged yet."""
        raw = self._state.get(_outcome_key(key, bundle))
        return None if raw is None else _outcomes.decode(raw)

    # -- what the core is told

    def take_changes(self) -> tuple[SessionView | EvictedMark, ...]:
        """What has changed since the last call; the batch ends with it."""
        self._write_back()
        changes: list[SessionView | EvictedMark] = list(self._evictions)
        changes += [_view(key, self._headers[key]) for key in self._touched]
        self._touched.clear()
        self._evictions.clear()
        return tuple(changes)

    def facts(self) -> tuple[SessionView | EvictedMark, ...]:
        """The whole table."""
        facts: list[SessionView | EvictedMark] = []
        for raw_key, raw in self._state.range(CLIENTS, CLIENTS_END):
            highest = int.from_bytes(raw, "big")
            facts.append(EvictedMark(raw_key[1:], highest, highest))
        for raw_key, raw in self._state.range(HEADERS, HEADERS_END):
            facts.append(_view(_key_of(raw_key), _headers.decode(raw)))
        return tuple(facts)


def _view(key: Key, header: Header) -> SessionView:
    return SessionView(key[0], key[1], header.low, header.executed)
