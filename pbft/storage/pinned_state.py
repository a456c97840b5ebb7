"""A flushed state that others may fetch while this replica moves on."""

from pbft.messages import StateSummary, TreeNode, TreePath
from pbft.storage.database import Snapshot
from pbft.storage.state_trees import tree_at


class PinnedState:
    """The state with this `summary`, readable node by node until it is closed.

    `crowded`: there is little room on the disk for pages that older states alone hold.
    """

    def __init__(self, snapshot: Snapshot, summary: StateSummary, crowded: bool) -> None:
        self._snapshot = snapshot
        self.summary = summary
        self.crowded = crowded

    def node(self, path: TreePath) -> TreeNode:
        """The node of the subtree below `path`. Raises ValueError for what is no path."""
        return tree_at(path).node(self._snapshot, path)

    def size(self, path: TreePath) -> int:
        """About how many bytes `node(path)` has, without loading it. Raises ValueError."""
        return tree_at(path).size_at(self._snapshot, path)

    @property
    def growth(self) -> int:
        """By how many bytes the file has grown since; what this state keeps is a part of that."""
        return self._snapshot.growth

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._snapshot.close()
