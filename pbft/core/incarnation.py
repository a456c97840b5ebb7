"""Has this replica forgotten what it promised? (R41)

A start has two steps. First the replica *asks*, under a number one above the last that its disk
knows, for the highest number under which its peers have seen it begin, and for the last votes that
they have of it. Once q replicas, itself included, know of nothing that its disk does not, it
*begins*: it makes the number durable, tells the peers, and is confirmed when q, itself included,
have made it durable too. Asking raises no number anywhere.

An empty disk, or an old image put back, learns from w peers that it has forgotten. It begins too,
under a number that is new to them, but stays silent until it has recovered (see `amnesia`). Up to
where it may have voted follows from the answers of any q-1 peers: one of them is correct, has
executed up to the last checkpoint that was stable here, and is at most one view below the highest
that this replica has left for. As any q-1 will do, the lowest are taken, and whoever answers late
may still lower the goal: no liar can put it out of reach. With their answers they remind it of the
starts of others, in these others' own signed words: else several that forget one after the other
would leave nobody who remembers.
"""

from collections.abc import Sequence

from msgspec import Struct

from pbft.codec import decode_body
from pbft.core.budget import Budgets
from pbft.core.context import Context, Instant, microseconds
from pbft.core.output import Outbox
from pbft.core.records import incarnations_write
from pbft.core.timers import Timers
from pbft.messages import Envelope, Incarnation, IncarnationSeen, Verified

ANNOUNCE = "incarnation"
HIGHEST = 2**63 - 1  # of the numbers that a message can name: a liar may have reached it
ANSWERS_PER_SECOND, ANSWERS_BURST = 32, 32
"""To one peer: each costs a signature, and for a start that has begun a write to the disk."""


class Promised(Struct, frozen=True):
    """The highest view and sequence number that a replica's votes name."""

    view: int = 0
    seq: int = 0


class MemoryConfirmed(Struct, frozen=True):
    """A quorum knows this start, and knew of no later one."""


class MemoryLost(Struct, frozen=True):
    """A weak quorum has seen starts or votes of this replica that its disk does not know."""


class Forgotten(Struct, frozen=True):
    """What was forgotten lies at or below `seq`, in views of which `view` is the last but one."""

    seq: int
    view: int


Fact = MemoryConfirmed | MemoryLost | Forgotten


class Incarnations:
    """This replica's own start, and what is remembered of the others'."""

    def __init__(self, context: Context, timers: Timers, outbox: Outbox) -> None:
        self._context = context
        self._timers = timers
        self._outbox = outbox
        self._every = microseconds(context.parameters.heartbeat_interval_ms)
        self._known: dict[int, int] = {}  # the highest number under which each replica has begun
        self._starts: dict[int, Envelope] = {}  # in its own words
        self._heard: dict[int, Promised] = {}
        self._answers: dict[int, IncarnationSeen] = {}
        self._first: dict[int, IncarnationSeen] = {}  # of each peer since this start
        self._budgets = Budgets[int](ANSWERS_PER_SECOND, ANSWERS_BURST)
        self._lost = False
        self._promised = Promised()
        self._number = self._nonce = 0
        self._begun = False
        self.confirmed = False

    def restore(self, starts: Sequence[Envelope], lost: bool) -> None:
        """Take up what was found on disk; `lost` says that it has been found to lack something."""
        self._known = starts_in(starts)
        self._starts = {_start_in(envelope).replica: envelope for envelope in starts}
        self._lost = lost

    def known(self, replica: int) -> int:
        """The highest number under which `replica` has begun, as far as is known here."""
        return self._known.get(replica, 0)

    def start(self, nonce: int, promised: Promised, now: Instant) -> None:
        """Ask the others about this start; the disk knows of votes up to `promised`."""
        self._number, self._nonce = self.known(self._context.id) + 1, nonce
        self._promised = promised
        self.announce(now)

    def announce(self, now: Instant) -> None:
        """Say it again until enough have answered; one that has forgotten wants to hear all."""
        if self.confirmed and not (self._lost and len(self._first) + 1 < self._context.quorum.n):
            return
        body = Incarnation(self._context.id, self._number, self._nonce, self._begun)
        self._outbox.send(None, self._context.sign(body).envelope)
        self._timers.set(ANNOUNCE, now.mono + self._every)

    # -- for others

    def heard(self, replica: int, view: int, seq: int) -> None:
        """A vote of `replica` has come: it may need to be reminded."""
        last = self._heard.get(replica)
        if last is None or view > last.view or seq > last.seq:
            last = last or Promised()
            self._heard[replica] = Promised(max(view, last.view), max(seq, last.seq))

    def on_incarnation(
        self, message: Verified[Incarnation], view: int, reached: int, now: Instant
    ) -> None:
        """Tell a peer what is known of it here; remember durably what it has begun.

        `view` and `reached`, the highest sequence number executed, are this replica's own.
        """
        body = message.body
        if not self._budgets.spend(body.replica, 1, now.mono):
            self._outbox.reject("incarnation-over-quota", body.replica)
            return
        self._remember(message.envelope)
        heard = self._heard.get(body.replica, Promised())
        answer = IncarnationSeen(
            replica=self._context.id,
            about=body.replica,
            nonce=body.nonce,
            highest=self.known(body.replica),
            voted_view=heard.view,
            voted_seq=heard.seq,
            view=view,
            reached=reached,
            starts=self._all_starts(),
        )
        self._outbox.send(body.replica, self._context.sign(answer).envelope)

    def _remember(self, *starts: Envelope) -> None:
        news = False
        for envelope in starts:
            body = _start_in(envelope)
            if body.begun and body.number > self.known(body.replica):
                self._known[body.replica], self._starts[body.replica] = body.number, envelope
                news = True
        if news:
            self._outbox.persist.append(incarnations_write(self._all_starts()))

    def _all_starts(self) -> tuple[Envelope, ...]:
        return tuple(self._starts[replica] for replica in sorted(self._starts))

    # -- for this replica

    def expects(self, body: IncarnationSeen) -> bool:
        """Whether this answers the question of this start, and may still tell something."""
        answers = body.about == self._context.id and body.nonce == self._nonce
        return answers and not (self.confirmed and body.replica in self._first)

    def on_seen(self, message: Verified[IncarnationSeen], now: Instant) -> list[Fact]:
        """Count the answers, one per replica."""
        body = message.body
        if not self.expects(body):
            return []
        self._remember(*(start for start in body.starts if _start_in(start).replica != body.about))
        facts: list[Fact] = []
        if not self.confirmed:
            self._answers[body.replica] = body
            facts = self._confirm() if self._begun else self._judge(now)
        return facts + self._forgotten(body)

    def recovered(self) -> None:
        """Nothing that was forgotten matters any more."""
        self._lost = False

    def _judge(self, now: Instant) -> list[Fact]:
        quorum, answers = self._context.quorum, self._answers.values()
        news = sum(self._is_news(answer) for answer in answers)
        if len(answers) - news + 1 >= quorum.q:
            self._begin(now)
        elif len(answers) + 1 >= quorum.q and news >= quorum.w:
            self._lost = True
            # Nobody can make this up: each number was shown in this replica's own signed words.
            self._number = max(self._number, *(answer.highest + 1 for answer in answers))
            self._begin(now)
            return [MemoryLost()]
        return []

    def _is_news(self, answer: IncarnationSeen) -> bool:
        """Whether a peer knows of something that this replica's disk does not."""
        later = answer.highest >= self._number
        promised = self._promised
        return later or answer.voted_view > promised.view or answer.voted_seq > promised.seq

    def _enough(self, values: list[int]) -> int:
        """The highest of the q-1 lowest."""
        return sorted(values)[self._context.quorum.q - 2]

    def _forgotten(self, answer: IncarnationSeen) -> list[Fact]:
        """What may have been forgotten, by all answers so far."""
        self._first.setdefault(answer.replica, answer)
        if not self._lost or len(self._first) + 1 < self._context.quorum.q:
            return []
        reached = self._enough([first.reached for first in self._first.values()])
        view = self._enough([first.view for first in self._first.values()])
        above = reached + self._context.parameters.window
        return [Forgotten(min(above, HIGHEST), view)]

    def _begin(self, now: Instant) -> None:
        self._begun = True
        self._answers.clear()
        body = Incarnation(self._context.id, self._number, self._nonce, begun=True)
        self._remember(self._context.sign(body).envelope)
        self.announce(now)

    def _confirm(self) -> list[Fact]:
        durable = sum(answer.highest >= self._number for answer in self._answers.values())
        if durable + 1 < self._context.quorum.q:
            return []
        self.confirmed = True
        return [MemoryConfirmed()]


def starts_in(starts: Sequence[Envelope]) -> dict[int, int]:
    """The number in each replica's INCARNATION."""
    bodies = map(_start_in, starts)
    return {body.replica: body.number for body in bodies}


def _start_in(envelope: Envelope) -> Incarnation:
    body = decode_body(envelope.body)
    assert isinstance(body, Incarnation)
    return body
