"""Proof of misbehaviour, kept durably: two signed messages that contradict each other (R46).

There is room for a few contradictions per replica, so that one culprit cannot use up the room for
evidence against others; the same contradiction is kept once.
"""

from collections.abc import Iterable

from pbft.core.output import Evidence, Outbox
from pbft.core.records import EvidenceRecord, evidence_write

MAX_EVIDENCE_PER_REPLICA = 16

Pair = tuple[bytes, bytes]


class EvidenceLocker:
    """Which contradictions of whom are kept already."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._kept: dict[int, dict[Pair, None]] = {}

    def restore(self, records: Iterable[EvidenceRecord]) -> None:
        """Take up what was found on disk."""
        for record in records:
            pair = record.first.body, record.second.body
            self._kept.setdefault(record.culprit, {})[pair] = None

    def keep(self) -> None:
        """Of what the step has found, persist and report only what is new and has room."""
        found, self._outbox.evidence = self._outbox.evidence, []
        for evidence in found:
            if self._is_new(evidence):
                number = len(self._kept[evidence.culprit]) - 1
                self._outbox.persist.append(evidence_write(number, evidence))
                self._outbox.evidence.append(evidence)

    def _is_new(self, evidence: Evidence) -> bool:
        kept = self._kept.setdefault(evidence.culprit, {})
        pair = evidence.first.body, evidence.second.body
        if pair in kept or len(kept) >= MAX_EVIDENCE_PER_REPLICA:
            return False
        kept[pair] = None
        return True
