"""What must hold after every step, checked in tests and in simulation.

One `Invariants` object outlives restarts of its replica, so it also sees a forgotten promise.
"""

from pbft.core.log import Slot
from pbft.core.replica import Replica


class InvariantBroken(AssertionError):
    """The core is in a state that it must never be in."""


class Invariants:
    """Compares a replica with its own past."""

    def __init__(self) -> None:
        self._view = 0
        self._low = 0
        self._voted: dict[tuple[str, int, int], bytes] = {}
        self._committed: dict[int, bytes] = {}
        self._checked: dict[int, tuple[object, ...]] = {}

    def restarted(self) -> None:
        """Positions that nobody was told of may be lost in a crash; promises may not."""
        self._view = self._low = 0
        self._checked.clear()

    def check(self, replica: Replica) -> None:
        """Raises InvariantBroken."""
        self._positions(replica)
        for seq, vote in replica.gate.checkpoints.items():
            self._once("checkpoint", 0, seq, vote.body.digest)
        position = replica.views.view, replica.ordering.active
        for slot in replica.log.above(0):
            state = _state(slot)
            if self._checked.get(slot.seq) != (position, state):
                self._slot(replica, slot)
                self._checked[slot.seq] = position, state

    def _positions(self, replica: Replica) -> None:
        _require(replica.views.view >= self._view, "views never move backwards (R31)")
        _require(replica.log.low >= self._low, "the low watermark never moves backwards")
        self._view, self._low = replica.views.view, replica.log.low
        queue = replica.queue
        _require(queue.executed <= queue.handed, "nothing is executed that was not handed out")
        _require(replica.log.low == replica.checkpoints.stable_seq, "h is the stable checkpoint")
        _require(replica.ordering.view == replica.views.view, "one view for all parts")
        _require(replica.ordering.active == replica.views.active, "ordering only inside a view")

    def _slot(self, replica: Replica, slot: Slot) -> None:
        view = replica.views.view
        if slot.prepared and replica.ordering.active:
            _require(slot.proof is not None, "prepared means a certificate (R4)")
            _require(slot.pre_prepare is not None, "prepared means a pre-prepare (R4)")
        for kind, vote in (("prepare", slot.own_prepare), ("commit", slot.own_commit)):
            if vote is not None:
                _require(vote.body.view <= view, "no vote in a view not reached")
                self._once(kind, vote.body.view, slot.seq, vote.body.digest)
        if slot.pre_prepare is not None and replica.ordering.leading:
            body = slot.pre_prepare.body
            self._once("pre-prepare", body.view, slot.seq, body.digest)
        if slot.certificate:
            digest = slot.committed_digest
            known = self._committed.setdefault(slot.seq, digest)
            _require(known == digest, "one batch per sequence number")

    def _once(self, kind: str, view: int, seq: int, digest: bytes) -> None:
        known = self._voted.setdefault((kind, view, seq), digest)
        _require(known == digest, f"one {kind} per view and seq, restarts included (R2)")


def _state(slot: Slot) -> tuple[object, ...]:
    """Everything that `_slot` looks at."""
    return (
        slot.prepared,
        slot.proof,
        slot.pre_prepare,
        slot.own_prepare,
        slot.own_commit,
        slot.certificate,
    )


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise InvariantBroken(what)
