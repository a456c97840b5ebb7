"""Clients' questions about certified states: nodes of the application's tree, with their proof.

The sessions' tree is not shown: it holds the results of other clients.
"""

from collections.abc import Iterator, Mapping

from pbft.codec import checkpoint_digest, decode_body
from pbft.core.budget import Budgets
from pbft.core.context import Context
from pbft.messages import Checkpoint, Proof, StateAnswer, StateQuery, StateSummary, TreeNode
from pbft.node.ports import Transport
from pbft.node.state_sync import ANSWER_BYTES, PATH_COST_BYTES, PinnedCheckpoints
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import GENESIS
from pbft.storage.tree_node import APPLICATION, MAX_DEPTH, check_path, content_bytes

MOST_NODES = 64
SHOWN_BYTES_PER_SECOND, SHOWN_BURST_BYTES = 8 * 1024 * 1024, 8 * 1024 * 1024


class StateQueries:
    """Answers from the pinned checkpoints, within a budget per client (R25, R43)."""

    def __init__(self, context: Context, transport: Transport, pins: PinnedCheckpoints) -> None:
        self._context = context
        self._transport = transport
        self._pins = pins
        self._budgets = Budgets[bytes](SHOWN_BYTES_PER_SECOND, SHOWN_BURST_BYTES)

    def answer(self, query: StateQuery, proofs: Mapping[int, Proof], now: int) -> bool:
        """Show what was asked for, as much of it as one answer holds, or say that it is not here.

        `proofs` are those of stable checkpoints, by sequence number. False where this client has
        been shown too much until `now` (µs).
        """
        if not self._budgets.spend(query.client, PATH_COST_BYTES * len(query.paths), now):
            return False
        asked = self._pins.use(query.seq, now), ()
        pinned, proof = asked if query.seq else self._newest(proofs, now)
        summary = GENESIS if pinned is None else pinned.summary
        nodes = () if pinned is None else _nodes(pinned, query.paths)
        self._budgets.charge(query.client, sum(map(content_bytes, nodes)))
        body = StateAnswer(self._context.id, query.client, query.nonce, summary, proof, nodes)
        self._transport.answer(query.client, query.nonce, self._context.sign(body).envelope)
        return True

    def _newest(self, proofs: Mapping[int, Proof], now: int) -> tuple[PinnedState | None, Proof]:
        for seq in sorted(proofs, reverse=True):
            pinned = self._pins.use(seq, now)
            if pinned is not None and _shows(proofs[seq], pinned.summary):
                return pinned, proofs[seq]
        return None, ()


def _shows(proof: Proof, summary: StateSummary) -> bool:
    """Whether a stable proof is one of this very state: this replica's own may be wrong (R22)."""
    body = decode_body(proof[0].body)
    return isinstance(body, Checkpoint) and body.digest == checkpoint_digest(summary)


def _nodes(pinned: PinnedState, paths: tuple[bytes, ...]) -> tuple[TreeNode, ...]:
    """What is at `paths`, each node once; what does not fit any more is left out."""
    found: dict[bytes, TreeNode] = {}
    size = 0
    for path in paths:
        if path[:1] != bytes([APPLICATION]):
            continue
        try:
            check_path(path)
            way = tuple(_way(pinned, path, found))
            size += sum(map(content_bytes, way))
        except ValueError:
            continue  # no path of any tree: not worth an answer
        if found and (size > ANSWER_BYTES or len(found) + len(way) > MOST_NODES):
            break
        found.update((node.path, node) for node in way[:MOST_NODES])
    return tuple(found.values())


def _way(pinned: PinnedState, path: bytes, known: Mapping[bytes, TreeNode]) -> Iterator[TreeNode]:
    """The node at `path`; for a key's whole path, every node from the root to its bucket.

    Those in `known` are left out, and where nothing lies below a node the way ends with it.
    """
    if len(path) <= MAX_DEPTH:
        if path not in known:
            yield pinned.node(path)
        return
    for length in range(1, len(path) + 1):
        node = known.get(path[:length]) or pinned.node(path[:length])
        if not node.children and not node.entries:
            return
        if node.path not in known:
            yield node
        if not node.children:
            return
