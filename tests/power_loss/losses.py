"""Which losses are tried at one moment: all of them where they are few, else a choice by rule."""

from collections.abc import Iterator
from itertools import product
from random import Random

from msgspec import Struct

from tests.power_loss.disk_model import WHOLE, Change, Choice


class Plan(Struct, frozen=True):
    """Up to `exhaustive` pending changes every subset is tried. Above: every prefix, suffix, single
    loss and single survivor, and `random` subsets. Every change is torn at `cuts` of its sectors
    (at most; both its halves are kept in turn, the others kept and lost in turn), and `random`
    times all are torn at once.
    """

    exhaustive: int
    random: int
    cuts: int


FULL = Plan(exhaustive=7, random=24, cuts=7)
SAMPLE = Plan(exhaustive=3, random=2, cuts=1)


def losses(pending: list[Change], plan: Plan, seed: str) -> Iterator[Choice]:
    """What may have reached the disk of these changes, without repetition."""
    random = Random(seed)
    tried: set[tuple[int, ...]] = set()
    for choice in (*_subsets(len(pending), plan, random), *_tears(pending, plan, random)):
        if choice not in tried:
            tried.add(choice)
            yield choice


def _subsets(count: int, plan: Plan, random: Random) -> Iterator[tuple[int, ...]]:
    if count <= plan.exhaustive:
        yield from product((0, WHOLE), repeat=count)
        return
    for cut in range(count + 1):
        yield (WHOLE,) * cut + (0,) * (count - cut)
        yield (0,) * cut + (WHOLE,) * (count - cut)
    for one in range(count):
        yield tuple(0 if i == one else WHOLE for i in range(count))
        yield tuple(WHOLE if i == one else 0 for i in range(count))
    for _ in range(plan.random):
        yield tuple(random.choice((0, WHOLE)) for _ in range(count))


def _tears(pending: list[Change], plan: Plan, random: Random) -> Iterator[tuple[int, ...]]:
    count = len(pending)
    for one, change in enumerate(pending):
        cuts = range(1, change.sectors)
        for cut in cuts if len(cuts) <= plan.cuts else random.sample(cuts, plan.cuts):
            first = (1 << cut) - 1
            for mask in (first, ~first & ((1 << change.sectors) - 1)):
                for others in (0, WHOLE):
                    yield tuple(mask if i == one else others for i in range(count))
    for _ in range(plan.random if any(change.sectors > 1 for change in pending) else 0):
        yield tuple(random.getrandbits(change.sectors) for change in pending)
