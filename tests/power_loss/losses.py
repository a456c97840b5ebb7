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
    times all are torn at once. Where more than `places` are pending, so many are drawn by lot for
    "every"; and of all that, `most` are (0: all are tried).
    """

    exhaustive: int
    random: int
    cuts: int
    places: int
    most: int = 0


FULL = Plan(exhaustive=7, random=24, cuts=7, places=200)
SAMPLE = Plan(exhaustive=4, random=4, cuts=2, places=8, most=12)


def losses(pending: list[Change], plan: Plan, seed: str) -> list[Choice]:
    """What may have reached the disk of these changes, without repetition."""
    random = Random(seed)
    choices = (*_subsets(len(pending), plan, random), *_tears(pending, plan, random))
    different = list(dict.fromkeys(choices))
    if plan.most and len(different) > plan.most:
        return random.sample(different, plan.most)
    return different


def _subsets(count: int, plan: Plan, random: Random) -> Iterator[tuple[int, ...]]:
    if count <= plan.exhaustive:
        yield from product((0, WHOLE), repeat=count)
        return
    for cut in (0, count, *_places(count, plan, random)):
        yield (WHOLE,) * cut + (0,) * (count - cut)
        yield (0,) * cut + (WHOLE,) * (count - cut)
    for one in _places(count, plan, random):
        yield tuple(0 if i == one else WHOLE for i in range(count))
        yield tuple(WHOLE if i == one else 0 for i in range(count))
    for _ in range(plan.random):
        yield tuple(random.choice((0, WHOLE)) for _ in range(count))


def _tears(pending: list[Change], plan: Plan, random: Random) -> Iterator[tuple[int, ...]]:
    count = len(pending)
    for one in _places(count, plan, random):
        change = pending[one]
        cuts = range(1, change.sectors)
        for cut in cuts if len(cuts) <= plan.cuts else random.sample(cuts, plan.cuts):
            first = (1 << cut) - 1
            for mask in (first, ~first & ((1 << change.sectors) - 1)):
                for others in (0, WHOLE):
                    yield tuple(mask if i == one else others for i in range(count))
    for _ in range(plan.random if any(change.sectors > 1 for change in pending) else 0):
        yield tuple(random.getrandbits(change.sectors) for change in pending)


def _places(count: int, plan: Plan, random: Random) -> list[int]:
    every = range(count)
    return list(every) if count <= plan.places else sorted(random.sample(every, plan.places))
