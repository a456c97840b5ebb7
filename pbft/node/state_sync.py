"""State transfer's hands: serving pinned checkpoints, checking and installing what peers send (R23)."""

from typing import Protocol

from pbft.core.context import Context
from pbft.core.events import NodesInstalled, NodesRefused
from pbft.core.state_transfer import ROOTS
from pbft.messages import FetchState, StateNodes, StateSummary, TreeNode, encode
from pbft.node.ports import Transport
from pbft.storage.merkle_trie import node_digest
from pbft.storage.state_store import PinnedState, StateStore

PINNED_CHECKPOINTS = 3
ANSWER_BYTES = 1024 * 1024


class SentBytes(Protocol):
    """Where the bytes that were served are counted."""

    def __call__(self, size: int) -> None: ...


class PinnedCheckpoints:
    """The newest checkpoints' states, kept as they were for replicas that are behind."""

    def __init__(self, context: Context, transport: Transport) -> None:
        self._context = context
        self._transport = transport
        self._pinned: dict[int, PinnedState] = {}

    def pin(self, state: PinnedState) -> None:
        """Keep one more; the oldest goes."""
        seq = state.summary.seq
        if old := self._pinned.pop(seq, None):
            old.close()
        self._pinned[seq] = state
        while len(self._pinned) > PINNED_CHECKPOINTS:
            self._pinned.pop(min(self._pinned)).close()

    def serve(self, fetch: FetchState) -> None:
        """Send the nodes that were asked for, as many as one answer holds; none if it is gone."""
        pinned = self._pinned.get(fetch.seq)
        if pinned is None:
            self._decline(fetch)
            return
        nodes: list[TreeNode] = []
        size = 0
        for path in fetch.paths:
            node = pinned.node(path)
            if node is None:
                continue
            size += len(encode(node))
            if nodes and size > ANSWER_BYTES:
                break
            nodes.append(node)
        self._send(fetch.replica, StateNodes(self._context.id, pinned.summary, tuple(nodes)))

    def _decline(self, fetch: FetchState) -> None:
        nothing = StateSummary(0, 0, bytes(32), bytes(32))
        newest = self._pinned[max(self._pinned)].summary if self._pinned else nothing
        self._send(fetch.replica, StateNodes(self._context.id, newest, ()))

    def _send(self, to: int, body: StateNodes) -> None:
        self._transport.send(to, self._context.sign(body).envelope)

    def close(self) -> None:
        """Let go of everything."""
        for state in self._pinned.values():
            state.close()
        self._pinned.clear()


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
        """Install every node that matches; one that does not condemns the whole answer."""
        for node in nodes.nodes:
            if self._expected.get(node.path) != node_digest(node):
                return NodesRefused(peer, "a node that does not match the target")
        wanted: list[bytes] = []
        for node in nodes.nodes:
            wanted += self._install(node)
        return NodesInstalled(peer, tuple(node.path for node in nodes.nodes), tuple(wanted))

    def _install(self, node: TreeNode) -> list[bytes]:
        if not node.children:
            self._store.install(node)
            return []
        differing = self._store.diff(node)
        for path in differing:
            self._expected[path] = node.children[path[-1]]
        return differing
