"""Packets as a reader wants to see them: one line each."""

from collections.abc import Callable
from typing import Any

from pbft.codec import decode_body
from pbft.messages import (
    AnyPacket,
    BatchBody,
    BatchReplies,
    Body,
    Checkpoint,
    CheckpointProof,
    Commit,
    CommittedBatch,
    Envelope,
    FetchBatch,
    FetchBatches,
    FetchState,
    Incarnation,
    IncarnationSeen,
    NewView,
    Prepare,
    PrePrepare,
    Proposal,
    Read,
    ReadReply,
    Recovery,
    Reply,
    Request,
    StateAnswer,
    StateNodes,
    StateQuery,
    Status,
    StatusQuery,
    StatusReport,
    Suspect,
    ViewChange,
)

_NAMES: dict[type, Callable[[Any], str]] = {
    PrePrepare: lambda b: f"PRE-PREPARE view={b.view} seq={b.seq} digest={_short(b.digest)}",
    Prepare: lambda b: f"PREPARE view={b.view} seq={b.seq} digest={_short(b.digest)}",
    Commit: lambda b: f"COMMIT view={b.view} seq={b.seq} digest={_short(b.digest)}",
    Checkpoint: lambda b: f"CHECKPOINT seq={b.seq} digest={_short(b.digest)}",
    ViewChange: lambda b: (
        f"VIEW-CHANGE view={b.view} stable={b.stable_seq} prepared={_seqs(b.prepared)}"
    ),
    NewView: lambda b: (
        f"NEW-VIEW view={b.view} from={[_of(e).replica for e in b.view_changes]} "
        f"proposes={[_of(e).seq for e in b.pre_prepares]}"
    ),
    Suspect: lambda b: f"SUSPECT view={b.view}",
    Status: lambda b: (
        f"STATUS view={b.view} {'active' if b.active else 'between views'} "
        f"known={b.known} stable={b.stable_seq}"
    ),
    FetchBatches: lambda b: f"FETCH-BATCHES {b.first}..{b.last}",
    FetchBatch: lambda b: f"FETCH-BATCH seq={b.seq} digest={_short(b.digest)}",
    FetchState: lambda b: f"FETCH-STATE seq={b.seq} paths={[p.hex() for p in b.paths]}",
    StateNodes: lambda b: f"STATE-NODES seq={b.summary.seq} nodes={len(b.nodes)}",
    Incarnation: lambda b: f"INCARNATION number={b.number} begun={b.begun}",
    IncarnationSeen: lambda b: f"INCARNATION-SEEN about={b.about} highest={b.highest}",
    Recovery: lambda b: f"RECOVERY above seq={b.above_seq} view={b.above_view}",
    Request: lambda b: f"REQUEST bundle={b.bundle} operations={len(b.operations)}",
    Read: lambda b: f"READ operations={len(b.operations)}",
    BatchReplies: lambda b: f"REPLIES view={b.view} seq={b.seq}",
    ReadReply: lambda b: "READ-REPLY refused" if b.refused else "READ-REPLY",
    StatusQuery: lambda _: "STATUS-QUERY",
    StatusReport: lambda _: "STATUS-REPORT",
    StateQuery: lambda b: f"STATE-QUERY seq={b.seq} paths={[p.hex() for p in b.paths]}",
    StateAnswer: lambda b: f"STATE-ANSWER seq={b.summary.seq} nodes={len(b.nodes)}",
}


def describe(packet: AnyPacket) -> str:
    """What `packet` says, in one line; a batch shows how many requests it has."""
    match packet:
        case Envelope():
            return _describe_body(_of(packet))
        case Proposal():
            requests = len(packet.batch.requests)
            return f"{_describe_body(_of(packet.pre_prepare))} requests={requests}"
        case BatchBody():
            return f"BATCH seq={packet.seq} requests={len(packet.batch.requests)}"
        case CommittedBatch():
            requests = len(packet.batch.requests)
            return f"COMMITTED seq={_of(packet.commits[0]).seq} requests={requests}"
        case Reply():
            return f"REPLY bundle={packet.leaf.bundle} status={packet.leaf.status}"
        case CheckpointProof():
            return f"CHECKPOINT-PROOF seq={_of(packet.checkpoints[0]).seq}"


def _describe_body(body: Body) -> str:
    return _NAMES[type(body)](body)


def _of(envelope: Envelope) -> Any:
    return decode_body(envelope.body)


def _short(digest: bytes) -> str:
    return digest.hex()[:6]


def _seqs(proofs: Any) -> list[int]:
    return [_of(proof.pre_prepare).seq for proof in proofs]
