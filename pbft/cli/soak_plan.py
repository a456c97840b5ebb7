"""What befalls the replicas of `pbft soak`, and when: drawn from a seed, and nothing else.

Steps of one trouble may fall into another one. Whoever carries them out skips what makes no sense
by then: a killed replica cannot be stopped, and one that runs is not started.
"""

from collections.abc import Iterator
from enum import Enum
from random import Random

from msgspec import Struct

from pbft.core.quorum import Quorum

EPOCH_SECONDS = 45.0
GAP_SECONDS = (0.2, 4.6)  # between the beginnings of two troubles
DOWN_SECONDS = (0.0, 3.0)
AGAIN_SECONDS = (0.0, 1.2)  # after a start: interpreter, disk, log, incarnation, view change
SHORT_STOP_SECONDS = (0.05, 2.0)
LONG_STOP_SECONDS = (2.0, 30.0)


class Act(Enum):
    """What is done to a replica."""

    KILL = "kill"
    START = "start"
    STOP = "stop"
    CONTINUE = "continue"
    WIPE = "wipe"


class Kind(Enum):
    """What sort of trouble a step belongs to."""

    ONE = "one"
    SEVERAL = "several at once"
    ALL = "all at once"
    AGAIN = "while it recovers"
    STOPPED = "stopped"
    WIPED = "wiped"


class Step(Struct, frozen=True):
    """`act` on `replicas`, `at` so many seconds after the epoch has begun."""

    at: float
    act: Act
    replicas: tuple[int, ...]
    kind: Kind


def plan(seed: int, epoch: int, replicas: int, *, wipe: bool = False) -> list[Step]:
    """The steps of one epoch, in the order in which they are taken."""
    planner = _Planner(Random(f"{seed}/{epoch}"), replicas)
    steps = [step for trouble in planner.troubles(wipe) for step in trouble]
    return sorted((step for step in steps if step.at <= EPOCH_SECONDS), key=lambda step: step.at)


class _Planner:
    def __init__(self, chance: Random, replicas: int) -> None:
        self._chance = chance
        self._replicas = range(replicas)
        self._tolerated = Quorum(replicas).f
        self._stopped: list[float] = []  # until when: of the long stops

    def troubles(self, wipe: bool) -> Iterator[list[Step]]:
        now = self._chance.uniform(*GAP_SECONDS)
        while now < EPOCH_SECONDS:
            draw = self._chance.random()
            if draw < 0.18:
                yield self._stop(now)
            elif wipe and draw < 0.24:
                yield [Step(now, Act.WIPE, (self._chance.choice(self._replicas),), Kind.WIPED)]
            else:
                yield list(self._kill(now))
            now += self._chance.uniform(*GAP_SECONDS)

    def _stop(self, now: float) -> list[Step]:
        """One for long (f of them at the same time at most), or some or all for a short while."""
        self._stopped = [until for until in self._stopped if until > now]
        if len(self._stopped) < self._tolerated and self._chance.random() < 0.5:
            victims, until = self._sample(1), now + self._chance.uniform(*LONG_STOP_SECONDS)
            self._stopped.append(until)
        else:
            victims, until = self._victims()[1], now + self._chance.uniform(*SHORT_STOP_SECONDS)
        return [
            Step(now, Act.STOP, victims, Kind.STOPPED),
            Step(until, Act.CONTINUE, victims, Kind.STOPPED),
        ]

    def _kill(self, now: float) -> Iterator[Step]:
        """Kill some and start them, together or one by one; at times again while they recover."""
        kind, victims = self._victims()
        while True:
            yield Step(now, Act.KILL, victims, kind)
            starts = [now + down for down in self._downs(len(victims))]
            for replica, at in zip(victims, starts, strict=True):
                yield Step(at, Act.START, (replica,), kind)
            if self._chance.random() < 0.65:
                return
            kind, now = Kind.AGAIN, max(starts) + self._chance.uniform(*AGAIN_SECONDS)

    def _victims(self) -> tuple[Kind, tuple[int, ...]]:
        draw, everybody = self._chance.random(), len(self._replicas)
        if draw < 0.6:
            return Kind.ONE, self._sample(1)
        if draw < 0.85:
            return Kind.SEVERAL, self._sample(self._chance.randrange(2, everybody))
        return Kind.ALL, self._sample(everybody)

    def _downs(self, count: int) -> list[float]:
        """For how long each of them is down: half of the time they are started at once."""
        if self._chance.random() < 0.5:
            return [0.0] * count
        if self._chance.random() < 0.5:
            return [self._chance.uniform(*DOWN_SECONDS)] * count
        return [self._chance.uniform(*DOWN_SECONDS) for _ in range(count)]

    def _sample(self, count: int) -> tuple[int, ...]:
        return tuple(self._chance.sample(self._replicas, count))
