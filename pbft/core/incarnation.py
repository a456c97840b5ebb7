"""Has this replica forgotten what it promised? (R41)

A start has two steps. First the replica *asks*, under a number one above the last that its disk
knows, for the highest number under which its peers have seen it begin. Once q replicas, itself
included, know lower ones only, it *begins*: it makes the number durable, tells the peers, and votes
when q, itself included, have made it durable too. An empty disk, or an old image put back, asks
under a number that q replicas have seen begun: however often it is started, it gets no further,
for asking raises no number anywhere.
"""

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.core.output import Outbox
from pbft.core.records import incarnations_write
from pbft.core.timers import Timers
from pbft.messages import Incarnation, IncarnationSeen, Verified

ANNOUNCE = "incarnation"


class MemoryConfirmed(Struct, frozen=True):
    """A quorum knows of no later start of this replica than its own disk does, and of this one."""


class MemoryLost(Struct, frozen=True):
    """A weak quorum has seen starts that this replica's disk (`own`) does not know."""

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
        self._known: dict[int, int] = {}  # the highest number under which each replica has begun
        self._answers: dict[int, int] = {}
        self._number = self._nonce = 0
        self._begun = False
        self.confirmed = False

    def restore(self, known: dict[int, int]) -> None:
        """Take up what was found on disk."""
        self._known = dict(known)

    def start(self, nonce: int, now: Instant) -> None:
        """Ask the others about this start."""
        self._number, self._nonce = self._known.get(self._context.id, 0) + 1, nonce
        self.announce(now)

    def announce(self, now: Instant) -> None:
        """Say it again until enough have answered."""
        body = Incarnation(self._context.id, self._number, self._nonce, self._begun)
        self._outbox.send(None, self._context.sign(body).envelope)
        self._timers.set(ANNOUNCE, now.mono + self._every)

    def on_incarnation(self, message: Verified[Incarnation]) -> None:
        """Tell a peer what is known of its starts; remember durably what it has begun."""
        body = message.body
        if body.begun:
            self._remember(body.replica, body.number)
        highest = self._known.get(body.replica, 0)
        answer = IncarnationSeen(self._context.id, body.replica, body.nonce, highest)
        self._outbox.send(body.replica, self._context.sign(answer).envelope)

    def _remember(self, replica: int, number: int) -> None:
        if number > self._known.get(replica, 0):
            self._known[replica] = number
            self._outbox.persist.append(incarnations_write(self._known))

    def on_seen(self, message: Verified[IncarnationSeen], now: Instant) -> list[Fact]:
        """Count the answers, one per replica."""
        body = message.body
        if body.about != self._context.id or body.nonce != self._nonce or self.confirmed:
            return []
        self._answers[body.replica] = max(body.highest, self._answers.get(body.replica, 0))
        later = sorted(known for known in self._answers.values() if known >= self._number)
        if self._begun:
            return self._confirm(later)
        if len(later) >= self._context.quorum.w:
            return [MemoryLost(later[0], self._number - 1)]
        if len(self._answers) - len(later) + 1 >= self._context.quorum.q:
            self._begin(now)
        return []

    def _begin(self, now: Instant) -> None:
        self._begun = True
        self._answers.clear()
        self._remember(self._context.id, self._number)
        self.announce(now)

    def _confirm(self, durable: list[int]) -> list[Fact]:
        if len(durable) + 1 < self._context.quorum.q:
            return []
        self.confirmed = True
        self._timers.stop(ANNOUNCE)
        return [MemoryConfirmed()]
