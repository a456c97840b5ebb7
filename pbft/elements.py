"""What messages are made of: bounds, numbers, digests, and the signed envelope."""

from typing import Annotated

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


class SlotReport(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How far a replica is with one undecided sequence number of its current view."""

    seq: Number
    pre_prepared: bool
    prepared: bool


TreePath = Annotated[bytes, Meta(max_length=66)]
"""A tree's number (0 application, 1 sessions), then one nibble (0..15) per byte, from the root."""


class StateSummary(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a checkpoint's digest is made of (R21)."""

    seq: Number
    time: Number
    application_root: Digest
    sessions_root: Digest


class TreeNode(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An inner node (`children` has 16 digests) or a bucket (`entries`, in order of the keys)."""

    path: TreePath
    children: Annotated[tuple[Digest, ...], Meta(max_length=TREE_FANOUT)]
    entries: Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=4096)]


class OperationResult(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One operation's outcome: `code` is OK, REFUSED by the application, FAILED (R47), or CROWDED.

    CROWDED: without effect, since others of its bundle have used up what a bundle may cost.
    """

    code: Annotated[int, Meta(ge=0, le=3)]
    value: bytes


OK, REFUSED, FAILED, CROWDED = 0, 1, 2, 3

Results = Annotated[tuple[OperationResult, ...], Meta(max_length=MAX_BUNDLE_OPERATIONS)]


class ReplyLeaf(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a client matches: one bundle's outcome. `status` is one of the bundle statuses below;
    `seq` is where operations were executed, else 0.
    """

    client: PublicKey
    session: Number
    bundle: Number
    request: Digest
    status: Annotated[int, Meta(ge=0, le=4)]
    results: Results
    seq: Number


EXECUTED = 0
SESSION_EXPIRED = 1  # unknown or evicted; the client opens a new session (R45)
SESSION_REFUSED = 2  # the number is taken or too low; results[0].value is the lowest free, 8 bytes
OUT_OF_WINDOW = 3  # already acknowledged, or too far ahead
CONFLICT = 4  # another bundle with this number was executed (R15)
