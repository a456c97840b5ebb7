"""State transfer's hands: serving pinned checkpoints, checking and installing nodes (R23)."""

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from pbft.core.budget import Budgets
from pbft.core.context import Context
from pbft.core.events import NodesInstalled, NodesRefused
from pbft.core.state_transfer import ROOTS
from pbft.messages import FetchState, StateNodes, StateSummary, TreeNode
from pbft.node.ports import Clock, Transport
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import GENESIS, StateStore
from pbft.storage.tree_node import EMPTY_DIGEST, MalformedNode, content_bytes, node_digest

PINNED_CHECKPOINTS = 3
MAX_PINS = 8  # those in use included
IN_USE_US = 10_000_000  # a pin that was used within this time stays,
MAX_AGE_US = 1_800_000_000  # but not for longer than this,
MAX_GROWTH_BYTES = 16 * 1024**3  # or once it makes the file grow by this

SERVED_BYTES_PER_SECOND, SERVED_BURST_BYTES = 32 * 1024 * 1024, 8 * 1024 * 1024
PATH_COST_BYTES = 1024  # what walking down to a node costs, as if it were sent
ANSWER_BYTES = 512 * 1024
REST = 49
"""Serving takes one part of a busy replica's time, and all else at least this many (R25)."""
BUSY_US = 1_000_000  # a replica is busy if it has executed something in this time


class Pin(Struct):
    """A state that is kept, since when, and when it was used last (µs; None: never)."""

    state: PinnedState
    since: int
    used: int | None = None


class PinnedCheckpoints:
    """The newest checkpoints' states as they were, and older ones for as long as they are used."""

    def __init__(self) -> None:
        self._pins: dict[int, Pin] = {}

    def pin(self, state: PinnedState, now: int) -> None:
        """Keep one more from `now` (µs) on; what is old and not in use goes, or room is scarce."""
        seq = state.summary.seq
        if old := self._pins.pop(seq, None):
            old.state.close()
        self._pins[seq] = Pin(state, now)
        for old_seq in sorted(self._pins)[: -1 if state.crowded else -PINNED_CHECKPOINTS]:
            full = state.crowded or len(self._pins) > MAX_PINS
            if full or not _in_use(self._pins[old_seq], now):
                self._pins.pop(old_seq).state.close()

    def use(self, seq: int, now: int) -> PinnedState | None:
        """The state after `seq`, if it is kept; from `now` (µs) on it stays so for a while.

        Nobody but the pins may close it.
        """
        pin = self._pins.get(seq)
        if pin is None:
            return None
        pin.used = now
        return pin.state

    @property
    def newest(self) -> StateSummary | None:
        """The summary of the newest state."""
        return self._pins[max(self._pins)].state.summary if self._pins else None

    def close(self) -> None:
        """Let go of everything."""
        for pin in self._pins.values():
            pin.state.close()
        self._pins.clear()


def _in_use(pin: Pin, now: int) -> bool:
    if pin.used is None or pin.used + IN_USE_US < now or pin.since + MAX_AGE_US < now:
        return False
    return pin.state.growth <= MAX_GROWTH_BYTES


class StateServer:
    """Answers FETCH-STATE: one question per peer waits, and all else comes first (R25)."""

    def __init__(
        self, context: Context, pins: PinnedCheckpoints, transport: Transport, clock: Clock
    ) -> None:
        self._context = context
        self._pins = pins
        self._transport = transport
        self._clock = clock
        self._budgets = Budgets[int](SERVED_BYTES_PER_SECOND, SERVED_BURST_BYTES)
        self._waiting: dict[int, FetchState] = {}
        self._delayed: dict[int, FetchState] = {}  # and counted
        self._not_before = 0
        self._busy_until = 0

    def ask(self, fetch: FetchState) -> None:
        """Answer this peer's question when there is time; an older one of it is forgotten."""
        self._waiting.pop(fetch.replica, None)
        self._waiting[fetch.replica] = fetch

    def executed(self) -> None:
        """The replica has work to do besides."""
        self._busy_until = self._clock.now().mono + BUSY_US

    @property
    def wake_at(self) -> int | None:
        """When there is time for the next answer (µs), or None if nobody waits."""
        return self._not_before if self._waiting else None

    def work(self, counters: Counter[str]) -> None:
        """Give one answer, if it is time."""
        if not self._waiting:
            return
        began = self._clock.now().mono
        if began < self._not_before:
            return
        for peer, fetch in list(self._waiting.items()):
            if self._budgets.spend(peer, PATH_COST_BYTES * len(fetch.paths), began):
                del self._waiting[peer]
                self._answer(fetch)
                break
            if self._delayed.get(peer) is not fetch:
                self._delayed[peer] = fetch
                counters["state-serving-budget"] += 1
        now = self._clock.now().mono
        took = now - began
        self._not_before = now + (REST * took if now < self._busy_until else took // 4)
        if self._waiting:
            self._not_before = max(self._not_before, now + 1000)

    def _answer(self, fetch: FetchState) -> None:
        pinned = self._pins.use(fetch.seq, self._clock.now().mono)
        if pinned is None:
            newest = self._pins.newest or GENESIS
            self._send(fetch.replica, StateNodes(self._context.id, newest, ()))
            return
        nodes = tuple(_nodes(pinned, fetch.paths))
        self._budgets.charge(fetch.replica, sum(map(content_bytes, nodes)))
        self._send(fetch.replica, StateNodes(self._context.id, pinned.summary, nodes))

    def _send(self, to: int, body: StateNodes) -> None:
        self._transport.send(to, self._context.sign(body).envelope)


def _nodes(pinned: PinnedState, paths: tuple[bytes, ...]) -> Iterator[TreeNode]:
    """The nodes that were asked for, each once, as many as one answer holds; one at least."""
    size = 0
    for path in dict.fromkeys(paths):
        try:
            size += pinned.size(path)
            if size > ANSWER_BYTES and path != paths[0]:
                return
            yield pinned.node(path)
        except ValueError:
            continue  # no path of any tree: not worth an answer


class Installer:
    """Checks fetched nodes against the target from the roots down, and installs buckets."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._expected: dict[bytes, bytes] = {}

    def begin(self, summary: StateSummary) -> None:
        """Give up the local state for `summary`, durably."""
        self._store.begin_transfer(summary)
        roots = (summary.application_root, summary.sessions_root)
        self._expected = dict(zip(ROOTS, roots, strict=True))

    def install(self, nodes: StateNodes, peer: int) -> NodesInstalled | NodesRefused:
        """Install every node that matches; one that does not condemns the whole answer.

        A node that is not expected (any more) is passed over: the answer may have come late.
        """
        known = [node for node in nodes.nodes if node.path in self._expected]
        for node in known:
            if self._expected[node.path] != _digest(node):
                return NodesRefused(peer, "a node that does not match the target")
        buckets = [node for node in known if not node.children]
        empty: list[TreeNode] = []
        wanted: list[bytes] = []
        for node in known:
            if node.children:
                self._compare(node, wanted, empty)
        self._store.install(*buckets, *empty)
        for node in buckets:
            if node.path not in ROOTS:  # those may have to be compared again
                del self._expected[node.path]
        paths = tuple(node.path for node in known)
        size = sum(map(content_bytes, buckets))
        return NodesInstalled(peer, paths, tuple(wanted), len(buckets), size)

    def _compare(self, node: TreeNode, wanted: list[bytes], empty: list[TreeNode]) -> None:
        """Children that differ are wanted; empty ones need no fetching."""
        for path in self._store.diff(node):
            digest = node.children[path[-1]]
            if digest == EMPTY_DIGEST:
                empty.append(TreeNode(path, (), ()))
            else:
                self._expected[path] = digest
                wanted.append(path)


def _digest(node: TreeNode) -> bytes | None:
    try:
        return node_digest(node)
    except MalformedNode:
        return None
