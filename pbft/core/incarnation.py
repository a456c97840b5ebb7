"""Has this replica forgotten what it promised? (R41)

Each start raises a number on the replica's own disk. Peers durably remember the highest that they
have heard of and say so. An empty disk, or an old image put back, starts with a number that they
know already: such a replica must not vote. One with an intact disk votes once q replicas, itself
included, have answered that they knew only lower ones.
"""

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.core.output import Outbox
from pbft.core.records import KnownStart, incarnations_write
from pbft.core.timers import Timers
from pbft.messages import Incarnation, IncarnationSeen, Verified

ANNOUNCE = "incarnation"


class MemoryConfirmed(Struct, frozen=True):
    """A quorum knows of no later start of this replica than its own disk does."""


class MemoryLost(Struct, frozen=True):
    """A weak quorum remembers starts that this replica's disk does not."""

    known: int
    own: int


Fact = MemoryConfirmed | MemoryLost


class Incarnations:
    """This replica's own start, and what is remembered of the others'."""

    def __init__(self, context: Context, timers: Timers, outbox: Outbox) -> None:
        self._context = context
        self._timers = timers
        self._outbox = outbox
        self._every = microseconds(context.parameters.heartbeat_interval_ms)
        self._known: dict[int, KnownStart] = {}
        self._answers: dict[int, int] = {}
        self._own = KnownStart(0, 0, 0)
        self.confirmed = False

    def restore(self, known: dict[int, KnownStart]) -> None:
        """Take up what was found on disk."""
        self._known = dict(known)

    def start(self, nonce: int, now: Instant) -> None:
        """Count this start, durably, and ask the others about it."""
        previous = self._known.get(self._context.id, self._own).number
        self._own = KnownStart(previous + 1, nonce, previous)
        self._known[self._context.id] = self._own
        self._outbox.persist.append(incarnations_write(self._known))
        self.announce(now)

    def announce(self, now: Instant) -> None:
        """Ask again until the answer is there."""
        body = Incarnation(self._context.id, self._own.number, self._own.nonce)
        self._outbox.send(None, self._context.sign(body).envelope)
        self._timers.set(ANNOUNCE, now.mono + self._every)

    def on_incarnation(self, message: Verified[Incarnation]) -> None:
        """Remember a peer's start, durably, and tell it what was known before."""
        body = message.body
        known = self._known.get(body.replica, KnownStart(0, 0, 0))
        if (body.number, body.nonce) == (known.number, known.nonce):
            previous = known.previous
        else:
            previous = known.number
            if body.number > known.number:
                self._known[body.replica] = KnownStart(body.number, body.nonce, previous)
                self._outbox.persist.append(incarnations_write(self._known))
        answer = IncarnationSeen(self._context.id, body.replica, body.nonce, previous)
        self._outbox.send(body.replica, self._context.sign(answer).envelope)

    def on_seen(self, message: Verified[IncarnationSeen]) -> list[Fact]:
        """Count the answers, one per replica."""
        body = message.body
        if body.about != self._context.id or body.nonce != self._own.nonce or self.confirmed:
            return []
        self._answers[body.replica] = body.previous
        quorum = self._context.quorum
        later = sorted(known for known in self._answers.values() if known >= self._own.number)
        if len(later) >= quorum.w:
            return [MemoryLost(later[0], self._own.number)]
        if len(self._answers) - len(later) + 1 < quorum.q:
            return []
        self.confirmed = True
        self._timers.stop(ANNOUNCE)
        return [MemoryConfirmed()]
