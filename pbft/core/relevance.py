"""Is a message worth checking its signatures? Read-only and cheap; asked before (R43)."""

from collections.abc import Callable
from typing import Any

from pbft.core.replica import Replica
from pbft.messages import (
    Body,
    Checkpoint,
    Commit,
    IncarnationSeen,
    NewView,
    Prepare,
    PrePrepare,
    StateNodes,
    ViewChange,
)

FUTURE_VIEWS = 2**32
"""Views further ahead than this are nonsense: no cluster lives through so many."""


def reason_to_drop(replica: Replica, body: Body) -> str | None:
    """Why `body` is of no use to `replica` now, or None if it may be."""
    judge = _JUDGES.get(type(body))
    return judge(replica, body) if judge else None


def _pre_prepare(replica: Replica, body: PrePrepare) -> str | None:
    ordering = replica.ordering
    if body.view != ordering.view or not ordering.active or body.replica != ordering.primary:
        return "pre-prepare-of-another-view"
    if not replica.log.keeps(body.seq):
        return "pre-prepare-out-of-window"
    slot = replica.log.get(body.seq)
    known = slot and slot.content and slot.digest == body.digest
    return "duplicate" if known else None


def _prepare(replica: Replica, body: Prepare) -> str | None:
    if reason := _vote(replica, body):
        return reason
    slot = replica.log.get(body.seq)
    if slot is None or body.view != replica.ordering.view:
        return None
    if slot.prepared or slot.prepares.voted(body.replica) == body.digest:
        return "vote-not-needed"
    return None


def _commit(replica: Replica, body: Commit) -> str | None:
    if reason := _vote(replica, body):
        return reason
    slot = replica.log.get(body.seq)
    if slot is None or body.view != replica.ordering.view:
        return None
    if slot.certificate or slot.commits.voted(body.replica) == body.digest:
        return "vote-not-needed"
    return None


def _vote(replica: Replica, body: Prepare | Commit) -> str | None:
    if body.view < replica.views.view:
        return "vote-of-an-earlier-view"
    if body.view > replica.views.view + FUTURE_VIEWS:
        return "view-far-ahead"
    return None if replica.log.keeps(body.seq) else "vote-out-of-window"


def _checkpoint(replica: Replica, body: Checkpoint) -> str | None:
    return "checkpoint-not-needed" if body.seq <= replica.checkpoints.stable_seq else None


def _view_change(replica: Replica, body: ViewChange) -> str | None:
    if body.view > replica.views.view + FUTURE_VIEWS:
        return "view-far-ahead"
    return None if replica.views.wants_change(body) else "view-change-not-needed"


def _new_view(replica: Replica, body: NewView) -> str | None:
    if body.view > replica.views.view + FUTURE_VIEWS:
        return "view-far-ahead"
    return None if replica.views.wants_opening(body.view) else "new-view-not-needed"


def _incarnation_seen(replica: Replica, body: IncarnationSeen) -> str | None:
    return None if replica.incarnations.expects(body) else "incarnation-not-asked-for"


def _state_nodes(replica: Replica, body: StateNodes) -> str | None:
    return None if replica.transfer.expects(body) else "state-not-asked-for"


_JUDGES: dict[type[Body], Callable[[Replica, Any], str | None]] = {
    PrePrepare: _pre_prepare,
    Prepare: _prepare,
    Commit: _commit,
    Checkpoint: _checkpoint,
    ViewChange: _view_change,
    NewView: _new_view,
    IncarnationSeen: _incarnation_seen,
    StateNodes: _state_nodes,
}
