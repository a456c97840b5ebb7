"""When the answers to a read without ordering are enough, and what they tell of how far we are.

An answer is a result with the sequence number of the state that it was read from, by the claim of
its replica. Of n replicas f may lie: q and w are as in `pbft.core.quorum`.
"""

from enum import Enum
from typing import NamedTuple

from pbft.core.quorum import Quorum
from pbft.messages import OperationResult


class Agreed(NamedTuple):
    """A result, and a sequence number that a correct replica has reached, and which is not before
    the state that a correct replica has read the result from."""

    result: OperationResult
    seq: int


class Undecided(Enum):
    """Whether more answers can help."""

    OPEN = "wait for more answers"
    HOPELESS = "order the read"


Answers = list[tuple[OperationResult, int]]
Decision = Agreed | Undecided


def meets_every_write(quorum: Quorum, answers: Answers, missing: int) -> Decision:
    """q equal results (R20). The w-th highest claim among them is one that a correct replica made,
    or lies below one; and no higher than what w of the correct ones among q have said."""
    groups = _by_result(answers)
    result = max(groups, key=lambda each: len(groups[each]), default=None)
    claims = groups[result] if result is not None else []
    if result is not None and len(claims) >= quorum.q:
        return Agreed(result, claims[-quorum.w])
    return Undecided.OPEN if len(claims) + missing >= quorum.q else Undecided.HOPELESS


def meets_what_is_known(quorum: Quorum, at_least: int, answers: Answers, missing: int) -> Decision:
    """w equal results of states after `at_least`, with claims up to the w-th highest of all claims.

    One of any w replicas is correct: so one has reached that ceiling, and one has read this result.
    """
    fresh = [(result, seq) for result, seq in answers if seq >= at_least]
    groups = _by_result(fresh)
    if len(fresh) >= quorum.w:
        ceiling = sorted(seq for _, seq in fresh)[-quorum.w]
        reached = {each: [seq for seq in groups[each] if seq <= ceiling] for each in groups}
        enough = {each: seqs for each, seqs in reached.items() if len(seqs) >= quorum.w}
        if enough:
            result = max(enough, key=lambda each: enough[each][quorum.w - 1])
            return Agreed(result, enough[result][quorum.w - 1])
    most = max(map(len, groups.values()), default=0)
    return Undecided.OPEN if missing and most + missing >= quorum.w else Undecided.HOPELESS


def _by_result(answers: Answers) -> dict[OperationResult, list[int]]:
    """The claims for each result, in order."""
    groups: dict[OperationResult, list[int]] = {}
    for result, seq in sorted(answers, key=lambda answer: answer[1]):
        groups.setdefault(result, []).append(seq)
    return groups
