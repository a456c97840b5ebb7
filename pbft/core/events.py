"""What can happen to a replica: the closed vocabulary that `Replica.step` takes."""

from msgspec import Struct

from pbft.core.batches import BatchContent
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import (
    Body,
    Checkpoint,
    Commit,
    PrePrepare,
    StateSummary,
    TreePath,
    Verified,
)


class Started(Struct, frozen=True):
    """The shell is ready; what was restored may be acted upon. `nonce` is random (63 bits)."""

    nonce: int


class Received(Struct, frozen=True):
    """A verified message arrived over the channel of `peer` (a replica id, or a client's key)."""

    message: Verified[Body]
    peer: int | bytes


class ProposalReceived(Struct, frozen=True):
    """A PRE-PREPARE with its batch; every client signature in it is verified (R3)."""

    pre_prepare: Verified[PrePrepare]
    content: BatchContent


class BatchReceived(Struct, frozen=True):
    """A batch that was asked for by digest; every client signature in it is verified."""

    seq: int
    content: BatchContent
    peer: int


class CommittedBatchReceived(Struct, frozen=True):
    """A batch with the COMMITs of a quorum, from a peer's log (R23)."""

    commits: tuple[Verified[Commit], ...]
    content: BatchContent
    peer: int


class CheckpointProofReceived(Struct, frozen=True):
    """CHECKPOINTs of several replicas, relayed."""

    checkpoints: tuple[Verified[Checkpoint], ...]


class OwnDurable(Struct, frozen=True):
    """A message of this replica's own is on its disk, so it may count it (R39)."""

    message: Verified[Body]


class Executed(Struct, frozen=True):
    """The application has executed `seq`; `summary` is there where a checkpoint falls due."""

    seq: int
    summary: StateSummary | None
    sessions: tuple[SessionView | EvictedMark, ...]
    next_deadline: int | None


class NodesInstalled(Struct, frozen=True):
    """Fetched nodes matched the target and are on disk; `wanted` are the paths still to fetch.

    `buckets` of them are buckets, with `size` bytes of keys and values.
    """

    peer: int
    installed: tuple[TreePath, ...]
    wanted: tuple[TreePath, ...]
    buckets: int = 0
    size: int = 0


class NodesRefused(Struct, frozen=True):
    """What `peer` sent does not match the target (R23)."""

    peer: int
    reason: str


class TransferFailed(Struct, frozen=True):
    """Everything was fetched, but the roots differ from the target: compare again from them."""


class StateInstalled(Struct, frozen=True):
    """The whole state of a certified checkpoint is in place."""

    summary: StateSummary
    sessions: tuple[SessionView | EvictedMark, ...]
    next_deadline: int | None


class PeerConnected(Struct, frozen=True):
    """A channel to a replica has opened."""

    replica: int


class PeerDisconnected(Struct, frozen=True):
    """The channel to a replica has closed: a hint, no more (R26)."""

    replica: int


class Tick(Struct, frozen=True):
    """The moment that the last Output asked for has come."""


class TurnEnded(Struct, frozen=True):
    """All events that waited have been stepped: a primary proposes what is pending now."""


Event = (
    Started
    | Received
    | ProposalReceived
    | BatchReceived
    | CommittedBatchReceived
    | CheckpointProofReceived
    | OwnDurable
    | Executed
    | NodesInstalled
    | NodesRefused
    | TransferFailed
    | StateInstalled
    | PeerConnected
    | PeerDisconnected
    | Tick
    | TurnEnded
)
