"""The two trees of the replicated state, and how their tables are changed together with them."""

from collections.abc import Mapping

from pbft.messages import TreeNode, TreePath
from pbft.storage.database import Reader, Transaction
from pbft.storage.merkle_trie import MerkleTrie
from pbft.storage.tree_node import APPLICATION, SESSIONS, check_path

STATE_TABLES = ("meta", "application", "application.nodes", "sessions", "sessions.nodes")
TREES = (
    MerkleTrie(APPLICATION, "application", "application.nodes"),
    MerkleTrie(SESSIONS, "sessions", "sessions.nodes"),
)


def tree_at(path: TreePath) -> MerkleTrie:
    """The tree that `path` is in. Raises ValueError for what is no path."""
    check_path(path)
    return TREES[path[0]]


def write_entries(
    transaction: Transaction, tree: MerkleTrie, changes: Mapping[bytes, bytes | None]
) -> None:
    """Change a table (None deletes a key) and its tree."""
    missing = transaction.write(tree.entries, changes)
    if missing:  # most deletions: what came and went between two checkpoints
        gone = set(missing)
        changes = {key: value for key, value in changes.items() if key not in gone}
    tree.update(transaction, changes)


def replacement(reader: Reader, node: TreeNode) -> dict[bytes, bytes | None]:
    """The changes that make what lies below a bucket's path equal to the bucket.

    ValueError for an inner node.
    """
    if node.children:
        raise ValueError("an inner node has no entries to install")
    changes: dict[bytes, bytes | None] = dict.fromkeys(
        tree_at(node.path).keys_below(reader, node.path)
    )
    changes.update(node.entries)
    return changes
