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

MAX_REPLICAS = 128
MAX_WINDOW = 4096
MAX_BATCH_REQUESTS = 4096
MAX_BUNDLE_OPERATIONS = 1024
MAX_SLOT_REPORTS = 64
MAX_TREE_PATHS = 64
TREE_FANOUT = 16

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ReplicaId = Annotated[int, Meta(ge=0, lt=MAX_REPLICAS)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Packet(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one frame carries."""


class Envelope(Packet, frozen=True, tag=0):
    """A signed body: its canonical encoding, and its sender's signature over that."""

    body: bytes
    signature: Signature


Proof = Annotated[tuple[Envelope, ...], Meta(max_length=MAX_REPLICAS)]


class Body(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is signed."""


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


class SlotReport(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far a replica is with one undecided sequence number of its current view."""

    seq: Number
    pre_prepared: bool
    prepared: bool


class Status(Body, frozen=True, tag=8):
    """The heartbeat; `active` is false between views, `slots` lists what waits."""

    replica: ReplicaId
    view: Number
    active: bool
    last_executed: Number  # or, while a state is fetched, up to where all batches after it are here
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


TreePath = Annotated[bytes, Meta(max_length=66)]
"""A tree's number (0 application, 1 sessions), then one nibble (0..15) per byte, from the root."""


class FetchState(Body, frozen=True, tag=11):
    """Ask one replica for nodes of the state trees as they were right after `seq`."""

    replica: ReplicaId
    seq: Number
    paths: Annotated[tuple[TreePath, ...], Meta(min_length=1, max_length=MAX_TREE_PATHS)]


class StateSummary(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a checkpoint's digest is made of (R21)."""

    seq: Number
    time: Number
    application_root: Digest
    sessions_root: Digest


class TreeNode(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An inner node (`children` has 16 digests) or a bucket (`entries`, by hash of the key)."""

    path: TreePath
    children: Annotated[tuple[Digest, ...], Meta(max_length=TREE_FANOUT)]
    entries: Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=4096)]


class StateNodes(Body, frozen=True, tag=12):
    """The answer to FETCH-STATE: the summary, and the nodes that were asked for."""

    replica: ReplicaId
    summary: StateSummary
    nodes: Annotated[tuple[TreeNode, ...], Meta(max_length=MAX_TREE_PATHS)]


# --- incarnations (R41) ----------------------------------------------------------------------


class Incarnation(Body, frozen=True, tag=13):
    """A replica starts: it asks whether others know of a later start, or says that it has `begun`.

    `nonce` is drawn at each start, so that a start is told from another with the same number.
    """

    replica: ReplicaId
    number: Number
    nonce: Number
    begun: bool


class IncarnationSeen(Body, frozen=True, tag=14):
    """The answer: the `highest` number under which `about` is durably known to have begun."""

    replica: ReplicaId
    about: ReplicaId
    nonce: Number
    highest: Number


# --- clients ---------------------------------------------------------------------------------


class Request(Body, frozen=True, tag=20):
    """Operations to be ordered and executed one after the other.

    Bundle 0 has no operations and opens the session. `acknowledged` says that the client has the
    results of every bundle up to and including that number, and wants them freed (R16). The
    operations of a `read_only` bundle are queries: an ordered read.
    """

    client: PublicKey
    session: Number
    bundle: Number
    acknowledged: Number
    read_only: bool
    operations: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BUNDLE_OPERATIONS)]


class Read(Body, frozen=True, tag=21):
    """Queries to be answered from the state as it is, without ordering (R20)."""

    client: PublicKey
    nonce: Number
    operations: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_BUNDLE_OPERATIONS)]


class OperationResult(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One operation's outcome: `code` is OK, REFUSED by the application, FAILED (R47), or CROWDED.

    CROWDED: without effect, since others of its bundle have used up what a bundle may cost.
    """

    code: Annotated[int, Meta(ge=0, le=3)]
    value: bytes


OK, REFUSED, FAILED, CROWDED = 0, 1, 2, 3

Results = Annotated[tuple[OperationResult, ...], Meta(max_length=MAX_BUNDLE_OPERATIONS)]


class ReplyLeaf(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client matches: one bundle's outcome. `status` is one of the bundle statuses below."""

    client: PublicKey
    session: Number
    bundle: Number
    request: Digest
    status: Annotated[int, Meta(ge=0, le=4)]
    results: Results


EXECUTED = 0
SESSION_EXPIRED = 1  # unknown or evicted; the client opens a new session (R45)
SESSION_REFUSED = 2  # the number is taken or too low; results[0].value is the lowest free, 8 bytes
OUT_OF_WINDOW = 3  # already acknowledged, or too far ahead
CONFLICT = 4  # another bundle with this number was executed (R15)


class BatchReplies(Body, frozen=True, tag=22):
    """One signature for all replies of a batch: `root` is the Merkle root over its reply leaves."""

    replica: ReplicaId
    view: Number
    seq: Number
    root: Digest


class ReadReply(Body, frozen=True, tag=23):
    """The answer to READ; `refused` while this replica may be behind an acknowledged write."""

    replica: ReplicaId
    client: PublicKey
    nonce: Number
    refused: bool
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


AnyBody = (
    PrePrepare
    | Prepare
    | Commit
    | Checkpoint
    | ViewChange
    | NewView
    | Suspect
    | Status
    | FetchBatches
    | FetchBatch
    | FetchState
    | StateNodes
    | Incarnation
    | IncarnationSeen
    | Request
    | Read
    | BatchReplies
    | ReadReply
    | StatusQuery
    | StatusReport
)


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
    """A body whose signature, and every signature inside it, has been checked.

    Only `pbft.node.authentication` and a replica's own signing gate build one.
    """

    body: M
    envelope: Envelope
