"""State transfer's hands: serving pinned checkpoints, checking and installing nodes (R23)."""

from collections.abc import Iterator

from pbft.core.budget import Budgets
from pbft.core.context import Context
from pbft.core.events import NodesInstalled, NodesRefused
from pbft.core.output import Note
from pbft.core.state_transfer import ROOTS
from pbft.messages import FetchState, StateNodes, StateSummary, TreeNode
from pbft.node.ports import Transport
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import StateStore
from pbft.storage.tree_node import EMPTY_DIGEST, MalformedNode, node_digest

PINNED_CHECKPOINTS = 3
SERVED_BYTES_PER_SECOND, SERVED_BURST_BYTES = 32 * 1024 * 1024, 8 * 1024 * 1024
PATH_COST_BYTES = 8 * 1024  # walking down to a node takes about as long as sending this
ANSWER_BYTES = 1024 * 1024


class PinnedCheckpoints:
    """The newest checkpoints' states, kept as they were for replicas that are behind."""

    def __init__(self, context: Context, transport: Transport) -> None:
        self._context = context
        self._transport = transport
        self._pinned: dict[int, PinnedState] = {}
        self._budgets = Budgets[int](SERVED_BYTES_PER_SECOND, SERVED_BURST_BYTES)

    def pin(self, state: PinnedState) -> None:
        """Keep one more; the oldest goes."""
        seq = state.summary.seq
        if old := self._pinned.pop(seq, None):
            old.close()
        self._pinned[seq] = state
        while len(self._pinned) > PINNED_CHECKPOINTS:
            self._pinned.pop(min(self._pinned)).close()

    def use(self, seq: int, _now: int) -> PinnedState | None:
        """The state after `seq`, if it is still here."""
        return self._pinned.get(seq)

    def serve(self, fetch: FetchState, now: int) -> bool:
        """Send the nodes that were asked for, as many as one answer holds; none if it is gone.

        False where this peer has been served too much until `now` (µs) (R25).
        """
        if not self._budgets.spend(fetch.replica, PATH_COST_BYTES * len(fetch.paths), now):
            return False
        pinned = self._pinned.get(fetch.seq)
        if pinned is None:
            self._decline(fetch)
            return True
        nodes: list[TreeNode] = []
        size = 0
        for path in fetch.paths:
            try:
                size += pinned.size(path)
                if nodes and size > ANSWER_BYTES:
                    break
                nodes.append(pinned.node(path))
            except ValueError:
                continue  # no path of any tree: not worth an answer
        self._budgets.charge(fetch.replica, size)
        self._send(fetch.replica, StateNodes(self._context.id, pinned.summary, tuple(nodes)))
        return True

    def _decline(self, fetch: FetchState) -> None:
        nothing = StateSummary(0, 0, bytes(32), bytes(32))
        newest = self._pinned[max(self._pinned)].summary if self._pinned else nothing
        self._send(fetch.replica, StateNodes(self._context.id, newest, ()))

    def _send(self, to: int, body: StateNodes) -> None:
        self._transport.send(to, self._context.sign(body).envelope)

    def describe(self, seq: int) -> Iterator[Note]:
        """A line for each tree of the state after `seq`: its sixteen parts, by their digests (R22).

        Where the lines of two replicas differ, their states do.
        """
        pinned = self._pinned.get(seq)
        for root in ROOTS if pinned else ():
            assert pinned is not None
            node = pinned.node(root)
            parts = node.children or (node_digest(node),)
            tree = ("application", "sessions")[root[0]]
            digests = ",".join(digest.hex()[:16] for digest in parts)
            yield Note("state-tree", (("seq", seq), ("tree", tree), ("parts", digests)))

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
            if self._expected.get(node.path) != _digest(node):
                return NodesRefused(peer, "a node that does not match the target")
        buckets = [node for node in nodes.nodes if not node.children]
        wanted: list[bytes] = []
        for node in nodes.nodes:
            if node.children:
                self._compare(node, wanted, buckets)
        self._store.install(*buckets)
        return NodesInstalled(peer, tuple(node.path for node in nodes.nodes), tuple(wanted))

    def _compare(self, node: TreeNode, wanted: list[bytes], buckets: list[TreeNode]) -> None:
        """Children that differ are wanted; empty ones need no fetching."""
        for path in self._store.diff(node):
            digest = node.children[path[-1]]
            if digest == EMPTY_DIGEST:
                buckets.append(TreeNode(path, (), ()))
            else:
                self._expected[path] = digest
                wanted.append(path)


def _digest(node: TreeNode) -> bytes | None:
    try:
        return node_digest(node)
    except MalformedNode:
        return None
