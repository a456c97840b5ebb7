"""Getting back what was missed: bodies by digest, committed batches from peers' logs (R23, R34).

Whoever asks rotates among those who should have it.
"""

from collections.abc import Sequence

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.core.log import Log
from pbft.core.output import Outbox
from pbft.core.repair import Repair
from pbft.core.timers import Timers
from pbft.messages import (
    BatchBody,
    CheckpointProof,
    CommittedBatch,
    FetchBatch,
    FetchBatches,
    Proof,
)

BODIES, BATCHES = "missing-bodies", "missing-batches"
BATCHES_PER_FETCH = 64


class Wanted(Struct):
    """A body that is missing, and who should have it."""

    seq: int
    digest: bytes
    holders: tuple[int, ...]
    asked: int = 0


class Fetching:
    """Asks for what is missing and answers those who ask."""

    def __init__(
        self, context: Context, log: Log, timers: Timers, repair: Repair, outbox: Outbox
    ) -> None:
        self._context = context
        self._log = log
        self._timers = timers
        self._outbox = outbox
        self._retry = 2 * microseconds(context.parameters.heartbeat_interval_ms)
        self._wanted: dict[int, Wanted] = {}
        self._turn = 0
        self._last_asked = 0
        self._repair = repair

    # -- bodies

    def want_body(self, seq: int, digest: bytes, holders: Sequence[int], now: Instant) -> None:
        """Fetch a batch that the new view proposes again (R34)."""
        others = tuple(replica for replica in holders if replica != self._context.id)
        self._wanted[seq] = Wanted(seq, digest, others or self._context.peers)
        self._ask(self._wanted[seq])
        self._timers.start(BODIES, now.mono + self._retry)

    def wants(self, seq: int, digest: bytes) -> bool:
        """Whether this body was asked for: others are not even verified."""
        wanted = self._wanted.get(seq)
        return wanted is not None and wanted.digest == digest

    def wants_any(self, seq: int) -> bool:
        """Whether some body for `seq` was asked for."""
        return seq in self._wanted

    def have_body(self, seq: int) -> None:
        """It has come."""
        self._wanted.pop(seq, None)

    def forget_bodies(self) -> None:
        """The view that named them was left."""
        self._wanted.clear()
        self._timers.stop(BODIES)

    def on_bodies_timer(self, low: int, now: Instant) -> None:
        """Ask the next holder of each."""
        for seq in [seq for seq in self._wanted if seq <= low]:
            del self._wanted[seq]
        for wanted in self._wanted.values():
            self._ask(wanted)
        if self._wanted:
            self._timers.set(BODIES, now.mono + self._retry)

    def _ask(self, wanted: Wanted) -> None:
        holder = wanted.holders[wanted.asked % len(wanted.holders)]
        wanted.asked += 1
        body = FetchBatch(self._context.id, wanted.seq, wanted.digest)
        self._outbox.send(holder, self._context.sign(body).envelope)

    def on_fetch_batch(self, body: FetchBatch, now: Instant) -> None:
        """Answer with the body, if it is here."""
        slot = self._log.get(body.seq)
        content = slot.contents.get(body.digest) if slot else None
        if content is not None:
            self._repair.send(body.replica, BatchBody(body.seq, content.batch), now)

    # -- committed batches

    def catch_up(self, executed: int, ahead: Sequence[tuple[int, int]]) -> None:
        """Ask one of the (replica, last executed) pairs `ahead` for what follows `executed`."""
        replica, last = ahead[self._turn % len(ahead)]
        self._turn += 1
        self._last_asked = min(last, executed + BATCHES_PER_FETCH)
        body = FetchBatches(self._context.id, executed + 1, self._last_asked)
        self._outbox.send(replica, self._context.sign(body).envelope)

    def asked_up_to(self, executed: int) -> bool:
        """Whether the last answer is used up: time to ask for more."""
        return executed == self._last_asked

    def on_fetch_batches(self, body: FetchBatches, proof: Proof, now: Instant) -> None:
        """Send committed batches as far as they are here; else the stable checkpoint's proof."""
        last = min(body.last, body.first + BATCHES_PER_FETCH - 1)
        for seq in range(body.first, last + 1):
            slot = self._log.get(seq)
            content = slot.committed if slot else None
            if slot is None or content is None:
                if proof and seq <= self._log.low:
                    self._repair.send(body.replica, CheckpointProof(proof), now)
                return
            if not self._repair.send(
                body.replica, CommittedBatch(slot.certificate, content.batch), now
            ):
                return
