"""What a replica says of itself: the JSON object behind `pbft status`."""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pbft.node.turn import Node


def report(node: "Node") -> bytes:
    """The report as UTF-8 JSON (fields are described in docs/operations.md)."""
    core = node.core
    return msgspec.json.encode(
        {
            "replica": node.context.id,
            "view": core.views.view,
            "active": core.views.active,
            "primary": core.ordering.primary,
            "last_executed": core.queue.executed,
            "stable_checkpoint": core.checkpoints.stable_seq,
            "low_watermark": core.log.low,
            "high_watermark": core.log.high,
            "state_digest": core.checkpoints.stable_digest.hex(),
            "own_digest": core.checkpoints.own_digest.hex(),
            "pending_requests": len(core.pool),
            "voting": not core.gate.silent,
            "transfer": _transfer(node),
            "log_commits": node.log_commits,
            "verifications": node.authenticator.verifications,
            "counters": dict(sorted(node.counters.items())),
        }
    )


def _transfer(node: "Node") -> dict[str, int] | None:
    transfer = node.core.transfer
    if transfer.target is None:
        return None
    return {"target": transfer.target.seq, "nodes_installed": transfer.installed}
