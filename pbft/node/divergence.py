"""What replicas that halt over a state leave behind, to show where their states differ (R22).

A replica cannot compare alone, and the others halt as well; so each writes down its whole state in
digests, one line per entry in an order that follows from the content alone. `diff` does the rest.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pbft.core.output import Note
from pbft.core.state_transfer import ROOTS
from pbft.messages import TreePath
from pbft.storage.database import StorageFailure
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_trees import tree_at
from pbft.storage.tree_node import entry_digest, node_digest

SHOWN_DIGITS = 16  # of a digest


def show(pinned: PinnedState | None, seq: int, folder: Path | None) -> Iterator[Note]:
    """Lines for the log, after writing `divergence-SEQ.txt` where there is a `folder`.

    `pinned` is the state after `seq`; where it is not kept any more, that is all there is to say.
    """
    if pinned is None:
        yield Note("state-tree", (("seq", seq), ("missing", "this state is not kept any more")))
        return
    try:
        written = _write(pinned, folder / f"divergence-{seq}.txt") if folder else ""
        for root in ROOTS:
            node = pinned.node(root)
            parts = node.children or (node_digest(node),)
            digests = ",".join(digest.hex()[:SHOWN_DIGITS] for digest in parts)
            tree = ("tree", tree_at(root).entries)
            yield Note("state-tree", (("seq", seq), tree, ("parts", digests), ("file", written)))
    except (OSError, StorageFailure) as error:
        yield Note("state-tree", (("seq", seq), ("missing", str(error))))


def listing(pinned: PinnedState) -> Iterator[str]:
    """Each entry of the state: its bucket (tree/path in hexadecimal), key, and digest."""
    for root in ROOTS:
        yield from _below(pinned, root)


def _below(pinned: PinnedState, path: TreePath) -> Iterator[str]:
    node = pinned.node(path)
    for branch in range(len(node.children)):
        yield from _below(pinned, path + bytes([branch]))
    bucket = tree_at(path).entries + "/" + "".join(f"{nibble:x}" for nibble in path[1:])
    for key, value in node.entries:
        yield f"{bucket} {key!r} {entry_digest(key, value).hex()[:SHOWN_DIGITS]}"


def _write(pinned: PinnedState, path: Path) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.writelines(line + "\n" for line in listing(pinned))
    return str(path)
