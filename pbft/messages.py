"""The vocabulary: everything that replicas and clients say to each other.

A *body* is what gets signed: a typed, frozen struct whose canonical MessagePack form is covered,
together with the cluster id and a domain, by its sender's Ed25519 signature (R7). An `Envelope`
is a body's bytes with that signature. A *packet* is what one frame carries: an envelope, or a
bundle of envelopes whose unsigned remainder is bound by a digest inside one of them.

Numbers: views, sequence numbers, sessions and bundles are unsigned 63-bit integers; times are
microseconds; digests are SHA-256; client identities are Ed25519 public keys.
"""

from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from pbft.elements import (
    CONFLICT as CONFLICT,
    CROWDED as CROWDED,
    EXECUTED as EXECUTED,
    FAILED as FAILED,
    MAX_BATCH_REQUESTS as MAX_BATCH_REQUESTS,
    MAX_BUNDLE_OPERATIONS as MAX_BUNDLE_OPERATIONS,
    MAX_REPLICAS as MAX_REPLICAS,
    MAX_SLOT_REPORTS as MAX_SLOT_REPORTS,
    MAX_TREE_PATHS as MAX_TREE_PATHS,
    MAX_WINDOW as MAX_WINDOW,
    OK as OK,
    OUT_OF_WINDOW as OUT_OF_WINDOW,
    REFUSED as REFUSED,
    SESSION_EXPIRED as SESSION_EXPIRED,
    SESSION_REFUSED as SESSION_REFUSED,
    TREE_FANOUT as TREE_FANOUT,
    Body as Body,
    Digest as Digest,
    Envelope as Envelope,
    Number as Number,
    OperationResult as OperationResult,
    Packet as Packet,
    Proof as Proof,
    PublicKey as PublicKey,
    ReplicaId as ReplicaId,
    ReplyLeaf as ReplyLeaf,
    Results as Results,
    Signature as Signature,
    SlotReport as SlotReport,
    StateSummary as StateSummary,
    TreeNode as TreeNode,
    TreePath as TreePath,
)

# --- ordering (O4.2) -------------------------------------------------------------------------


class PrePrepare(Body, frozen=True, tag=1):
    """The primary assigns `seq` in `view` to the batch with `digest`."""

    replica: ReplicaId
    view: Number
    seq: Number
    digest: Digest


class Prepare(Body, frozen=True, tag=2):
    """A backup agrees to that assignment."""

    replica: ReplicaId
    view: Number
    seq: Number
    digest: Digest


class Commit(Body, frozen=True, tag=3):
    """A replica holds a prepared certificate for that assignment."""

    replica: ReplicaId
    view: Number
    seq: Number
    digest: Digest


class Checkpoint(Body, frozen=True, tag=4):
    """The state right after executing `seq` has `digest` (O4.3)."""

    replica: ReplicaId
    seq: Number
    digest: Digest


# --- view change (O4.4) ----------------------------------------------------------------------


class PreparedProof(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A prepared certificate: a PRE-PREPARE and q-1 matching PREPAREs of distinct backups (R4)."""

    pre_prepare: Envelope
    prepares: Proof


class ViewChange(Body, frozen=True, tag=5):
    """A replica leaves for `view` with its stable checkpoint and what it has prepared above it."""

    replica: ReplicaId
    view: Number
    stable_seq: Number
    stable_digest: Digest
    stable_proof: Proof
    prepared: Annotated[tuple[PreparedProof, ...], Meta(max_length=MAX_WINDOW)]


class NewView(Body, frozen=True, tag=6):
    """The primary of `view` opens it: q VIEW-CHANGEs, and the PRE-PREPAREs they call for."""

    replica: ReplicaId
    view: Number
    view_changes: Proof
    pre_prepares: Annotated[tuple[Envelope, ...], Meta(max_length=MAX_WINDOW)]


class Suspect(Body, frozen=True, tag=7):
    """A replica that waits for nothing has lost faith in the primary of `view` (R26)."""

    replica: ReplicaId
    view: Number


# --- repair ----------------------------------------------------------------------------------


class Status(Body, frozen=True, tag=8):
    """The heartbeat; `active` is false between views, `slots` lists what waits.

    `known` is the sequence number after which votes and batches are wanted: the last executed one,
    or while a state is fetched the last one up to which all batches after that are here.
    """

    replica: ReplicaId
    view: Number
    active: bool
    known: Number
    stable_seq: Number
    slots: Annotated[tuple[SlotReport, ...], Meta(max_length=MAX_SLOT_REPORTS)]


class FetchBatches(Body, frozen=True, tag=9):
    """Ask one replica for the committed batches of `first`..`last`, both included."""

    replica: ReplicaId
    first: Number
    last: Number


class FetchBatch(Body, frozen=True, tag=10):
    """Ask one replica for the batch with `digest` that was proposed for `seq` (R34)."""

    replica: ReplicaId
    seq: Number
    digest: Digest


class FetchState(Body, frozen=True, tag=11):
    """Ask one replica for nodes of the state trees as they were right after `seq`."""

    replica: ReplicaId
    seq: Number
    paths: Annotated[tuple[TreePath, ...], Meta(min_length=1, max_length=MAX_TREE_PATHS)]


class StateNodes(Body, frozen=True, tag=12):
    """The answer to FETCH-STATE: the summary, and the nodes that were asked for."""

    replica: ReplicaId
    summary: StateSummary
    nodes: Annotated[tuple[TreeNode, ...], Meta(max_length=MAX_TREE_PATHS)]


# --- incarnations (R41) ----------------------------------------------------------------------


class Incarnation(Body, frozen=True, tag=13):
    """A replica starts: it asks whether others know of a later start, or says that it has `begun`.
    `nonce`, drawn at each start, tells it from another with the same number."""

    replica: ReplicaId
    number: Number
    nonce: Number
    begun: bool


class IncarnationSeen(Body, frozen=True, tag=14):
    """The answer: what this replica knows of `about`, and where it is itself.

    `highest` is the number under which `about` is durably known to have begun, `voted_view` and
    `voted_seq` are the highest in its votes. This replica is in `view`, and has executed (or seen
    stable) everything up to `reached`. `starts` are the last INCARNATIONs under which others have
    begun: one that has forgotten must know them again.
    """

    replica: ReplicaId
    about: ReplicaId
    nonce: Number
    highest: Number
    voted_view: Number
    voted_seq: Number
    view: Number
    reached: Number
    starts: Annotated[tuple[Envelope, ...], Meta(max_length=MAX_REPLICAS)]


class Recovery(Body, frozen=True, tag=15):
    """A replica has forgotten: it votes again after a stable checkpoint above `above_seq`, and in a
    view above `above_view`. `number` is that of its start.
    """

    replica: ReplicaId
    number: Number
    above_seq: Number
    above_view: Number


# --- clients ---------------------------------------------------------------------------------


class Request(Body, frozen=True, tag=20):
    """Operations to be ordered, and executed in order; bundle 0 has none and opens the session.
    The client has all results up to `acknowledged`, and wants them freed (R16). The operations of a
    `read_only` bundle are queries: an ordered read."""

    client: PublicKey
    session: Number
    bundle: Number
    acknowledged: Number
    read_only: bool
    operations: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BUNDLE_OPERATIONS)]


class Read(Body, frozen=True, tag=21):
    """Queries to be answered without ordering, from the state as it is (`at_least` 0, R20), or from
    any state after that sequence number or a later one."""

    client: PublicKey
    nonce: Number
    at_least: Number
    operations: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_BUNDLE_OPERATIONS)]


class BatchReplies(Body, frozen=True, tag=22):
    """One signature for all replies of a batch: `root` is the Merkle root over its reply leaves."""

    replica: ReplicaId
    view: Number
    seq: Number
    root: Digest


class ReadReply(Body, frozen=True, tag=23):
    """The answer to READ from the state after `seq`; `refused` while this replica may be behind."""

    replica: ReplicaId
    client: PublicKey
    nonce: Number
    refused: bool
    seq: Number
    results: Results


class StatusQuery(Body, frozen=True, tag=24):
    """A client asks one replica how it is."""

    client: PublicKey
    nonce: Number


class StatusReport(Body, frozen=True, tag=25):
    """The answer: `report` is a JSON object in UTF-8 (see docs/operations.md)."""

    replica: ReplicaId
    client: PublicKey
    nonce: Number
    report: bytes


class StateQuery(Body, frozen=True, tag=26):
    """A client asks one replica for nodes of the application's tree at a checkpoint (0: newest)."""

    client: PublicKey
    nonce: Number
    seq: Number
    paths: Annotated[tuple[TreePath, ...], Meta(min_length=1, max_length=MAX_TREE_PATHS)]


class StateAnswer(Body, frozen=True, tag=27):
    """The answer; `proof` is there where the newest was asked for, `summary.seq` 0: not here."""

    replica: ReplicaId
    client: PublicKey
    nonce: Number
    summary: StateSummary
    proof: Proof
    nodes: Annotated[tuple[TreeNode, ...], Meta(max_length=MAX_TREE_PATHS)]


_Voting = PrePrepare | Prepare | Commit | Checkpoint | ViewChange | NewView | Suspect
_Repair = Status | FetchBatches | FetchBatch | FetchState | StateNodes
_Starts = Incarnation | IncarnationSeen | Recovery
_Asking = Request | Read | BatchReplies | ReadReply | StatusQuery | StatusReport
AnyBody = _Voting | _Repair | _Starts | _Asking | StateQuery | StateAnswer


# --- packets ---------------------------------------------------------------------------------


class Batch(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The requests of one sequence number, and the primary's wall-clock time (µs since 1970)."""

    time: Number
    requests: Annotated[tuple[Envelope, ...], Meta(max_length=MAX_BATCH_REQUESTS)]


class Proposal(Packet, frozen=True, tag=1):
    """A PRE-PREPARE with the batch beside it; the batch is bound by the digest inside."""

    pre_prepare: Envelope
    batch: Batch


class BatchBody(Packet, frozen=True, tag=2):
    """The answer to FETCH-BATCH: self-certifying by its digest."""

    seq: Number
    batch: Batch


class CommittedBatch(Packet, frozen=True, tag=3):
    """The answer to FETCH-BATCHES: q COMMITs and the batch that their digest names (R23)."""

    commits: Proof
    batch: Batch


class Reply(Packet, frozen=True, tag=4):
    """One bundle's outcome with its Merkle path to the root inside the signed `header`."""

    header: Envelope
    index: Annotated[int, Meta(ge=0, lt=MAX_BATCH_REQUESTS)]
    path: Annotated[tuple[Digest, ...], Meta(max_length=16)]
    leaf: ReplyLeaf


class CheckpointProof(Packet, frozen=True, tag=5):
    """Matching CHECKPOINTs of distinct replicas, relayed to one that has missed them."""

    checkpoints: Proof


AnyPacket = Envelope | Proposal | BatchBody | CommittedBatch | Reply | CheckpointProof

M = TypeVar("M", bound=Body, covariant=True)


class Verified(Struct, Generic[M], frozen=True):
    """A body whose signature, and every signature inside it, has been checked. Only
    `pbft.node.authentication` and a replica's own signing gate build one."""

    body: M
    envelope: Envelope
