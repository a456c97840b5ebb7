"""What a replica writes into its log, and how it is read back (R39, R40).

Tables: `view` (where it stands), `slots` (one record per sequence number: pre-prepare, own votes,
certificates), `batches` (bodies), `checkpoints` (own votes and the stable proof), `evidence`.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from pbft.codec import encode
from pbft.core.batches import BatchContent, content_of
from pbft.core.output import Evidence, Write
from pbft.messages import Batch, CheckpointProof, Envelope, PreparedProof, Proof

TABLES = ("meta", "view", "slots", "batches", "checkpoints", "evidence")


class ViewRecord(Struct, frozen=True, array_like=True):
    """The view it is in, or (not `active`) on its way to; with the messages that got it there."""

    view: int
    active: bool
    max_seq: int  # the highest sequence number that the NEW-VIEW proposed again (R20)
    view_change: Envelope | None = None
    new_view: Envelope | None = None


class SlotRecord(Struct, frozen=True, array_like=True):
    """Everything about one sequence number that must survive."""

    pre_prepare: Envelope | None
    prepare: Envelope | None
    commit: Envelope | None
    proof: PreparedProof | None
    certificate: Proof


class IncarnationRecord(Struct, frozen=True, array_like=True):
    """The last INCARNATION under which each replica has begun, this one included."""

    starts: tuple[Envelope, ...]


class AmnesiaRecord(Struct, frozen=True, array_like=True):
    """What a replica that has forgotten must pass before it votes again (R41)."""

    above_seq: int
    above_view: int


class EvidenceRecord(Struct, frozen=True, array_like=True):
    """Two signed messages that contradict each other."""

    kind: str
    culprit: int
    first: Envelope
    second: Envelope


class Restored(Struct):
    """The log as it was found at a start."""

    view: ViewRecord = ViewRecord(0, True, 0)
    slots: dict[int, SlotRecord] = {}
    batches: dict[int, list[BatchContent]] = {}
    checkpoints: dict[int, Envelope] = {}
    stable: Proof = ()
    incarnations: tuple[Envelope, ...] = ()
    amnesia: AmnesiaRecord | None = None
    evidence: list[EvidenceRecord] = []


def seq_key(seq: int) -> bytes:
    """Sequence numbers sort as bytes do."""
    return seq.to_bytes(8, "big")


def view_write(record: ViewRecord) -> Write:
    return Write("view", b"current", encode(record))


def incarnations_write(starts: tuple[Envelope, ...]) -> Write:
    return Write("view", b"incarnations", encode(IncarnationRecord(starts)))


def amnesia_write(record: AmnesiaRecord | None) -> Write:
    return Write("view", b"amnesia", None if record is None else encode(record))


def slot_write(seq: int, record: SlotRecord) -> Write:
    return Write("slots", seq_key(seq), encode(record))


def slot_delete(seq: int) -> Write:
    return Write("slots", seq_key(seq), None)


def batch_write(seq: int, content: BatchContent) -> Write:
    return Write("batches", seq_key(seq) + content.digest, encode(content.batch))


def batch_delete(seq: int, digest: bytes) -> Write:
    return Write("batches", seq_key(seq) + digest, None)


def checkpoint_write(seq: int, envelope: Envelope | None) -> Write:
    value = None if envelope is None else encode(envelope)
    return Write("checkpoints", seq_key(seq), value)


def stable_write(proof: Proof) -> Write:
    return Write("checkpoints", b"stable", encode(CheckpointProof(proof)))


def evidence_write(number: int, evidence: Evidence) -> Write:
    """The `number`-th contradiction of one culprit."""
    record = EvidenceRecord(evidence.kind, evidence.culprit, evidence.first, evidence.second)
    return Write("evidence", seq_key(evidence.culprit) + seq_key(number), encode(record))


def restore(records: Iterable[tuple[str, bytes, bytes]]) -> Restored:
    """Read back (table, key, value) triples. Raises msgspec.DecodeError, MalformedMessage."""
    restored = Restored(slots={}, batches={}, checkpoints={}, evidence=[])
    for table, key, value in records:
        _READERS[table](restored, key, value)
    return restored


def _view(restored: Restored, key: bytes, value: bytes) -> None:
    if key == b"current":
        restored.view = msgspec.msgpack.decode(value, type=ViewRecord)
    elif key == b"amnesia":
        restored.amnesia = msgspec.msgpack.decode(value, type=AmnesiaRecord)
    else:
        restored.incarnations = msgspec.msgpack.decode(value, type=IncarnationRecord).starts


def _slot(restored: Restored, key: bytes, value: bytes) -> None:
    restored.slots[int.from_bytes(key, "big")] = msgspec.msgpack.decode(value, type=SlotRecord)


def _batch(restored: Restored, key: bytes, value: bytes) -> None:
    content = content_of(msgspec.msgpack.decode(value, type=Batch))
    restored.batches.setdefault(int.from_bytes(key[:8], "big"), []).append(content)


def _checkpoint(restored: Restored, key: bytes, value: bytes) -> None:
    if key == b"stable":
        restored.stable = msgspec.msgpack.decode(value, type=CheckpointProof).checkpoints
    else:
        seq = int.from_bytes(key, "big")
        restored.checkpoints[seq] = msgspec.msgpack.decode(value, type=Envelope)


def _evidence(restored: Restored, _key: bytes, value: bytes) -> None:
    restored.evidence.append(msgspec.msgpack.decode(value, type=EvidenceRecord))


def _meta(_restored: Restored, _key: bytes, _value: bytes) -> None:
    return None


_READERS = {
    "meta": _meta,
    "view": _view,
    "slots": _slot,
    "batches": _batch,
    "checkpoints": _checkpoint,
    "evidence": _evidence,
}
