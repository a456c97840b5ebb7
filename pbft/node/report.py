"""What a replica says of itself: the JSON object behind `pbft status`."""

from collections import Counter

import msgspec

from pbft.core.records import AmnesiaRecord
from pbft.core.replica import Replica
from pbft.core.state_transfer import StateTransfer
from pbft.node.memory import private_bytes
from pbft.storage.scrub import Progress


def report(
    replica: int,
    core: Replica,
    *,
    state_bytes: int,
    max_state_bytes: int,
    log_commits: int,
    verifications: int,
    scrubbed: Progress,
    counters: Counter[str],
) -> bytes:
    """The report as UTF-8 JSON (fields are described in docs/operations.md)."""
    return msgspec.json.encode(
        {
            "replica": replica,
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
            "amnesiac": core.amnesia.goal is not None,
            "recovering_above": _goal(core.amnesia.goal),
            "transfer": _transfer(core.transfer),
            "state_bytes": state_bytes,
            "max_state_bytes": max_state_bytes,
            "memory_bytes": private_bytes(),
            "log_commits": log_commits,
            "verifications": verifications,
            "scrub": scrubbed,
            "counters": dict(sorted(counters.items())),
        }
    )


def _goal(goal: AmnesiaRecord | None) -> dict[str, int] | None:
    return None if goal is None else {"seq": goal.above_seq, "view": goal.above_view}


def _transfer(transfer: StateTransfer) -> dict[str, int | tuple[int, ...]] | None:
    if transfer.target is None:
        return None
    progress = transfer.progress
    return {
        "target": transfer.target.seq,
        "moves": progress.moves,
        "bytes": progress.size,
        "buckets": progress.buckets,
        "nodes_wanted": transfer.wanted,
        "sources": transfer.sources,
    }
