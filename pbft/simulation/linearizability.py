"""Is a history linearizable? (Herlihy & Wing, TOPLAS 1990.)

Each key is checked on its own (locality). The search is Wing & Gong's (1993) with Lowe's memory of
(linearised set, state) pairs (2017), as in Knossos and Porcupine; `register` holds the rules that
keep it short. Two operations whose intervals touch in one microsecond count as concurrent.

The question is NP-complete where values repeat, and then the limit is how many operations are open
at once: of 4,800 operations on one key, all with values of their own, those of 30 clients take
about a second, those of 16 clients that draw from 20 values and never learn the outcome of 1 % a
few. With 30 clients and 20 values, whether some outcomes are unknown or not, the verdict is
UNDECIDED: the swaps of what is open at once fit together in too many ways. So let clients write
values of their own.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from pbft.simulation.history import Action, Operation
from pbft.simulation.register import Node, Register, Value

MAX_STEPS = 200_000
PRICE_OF_UNKNOWN = 20


class Verdict(Enum):
    """What can be said of a history. UNDECIDED is no better than VIOLATION."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"


class Judgement(Struct, frozen=True):
    """A verdict, and what speaks against the history: `key` is where, if it is not linearizable."""

    verdict: Verdict
    key: bytes | None = None
    explanation: str = ""

    def __str__(self) -> str:
        if self.key is None:
            return self.verdict.value
        return f"{self.verdict.value}: key {self.key!r}: {self.explanation}"


def check(history: Iterable[Operation], max_steps: int = MAX_STEPS) -> Judgement:
    """Judge `history`, whose keys are all absent at first; at most `max_steps` states per key.

    A violation under one key is told before an undecided search under another.
    """
    undecided: Judgement | None = None
    for key, operations in _by_key(history).items():
        verdict = _search(operations, max_steps)
        if verdict is Verdict.VIOLATION:
            return Judgement(verdict, key, _explain(operations, max_steps))
        if verdict is Verdict.UNDECIDED:
            text = f"no answer within {max_steps} steps for {len(operations)} operations"
            undecided = undecided or Judgement(verdict, key, text)
    return undecided or Judgement(Verdict.LINEARIZABLE)


def _by_key(history: Iterable[Operation]) -> dict[bytes, list[Operation]]:
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def _search(operations: list[Operation], max_steps: int) -> Verdict:
    """Depth first finds most; where it loses its way, the search by cost does better."""
    register = Register(operations)
    short = max_steps // 8
    verdict = _walk(register, short, lambda _node: 0)
    if verdict is Verdict.UNDECIDED:
        verdict = _walk(register, max_steps - short, _cost)
    return verdict


def _cost(node: Node) -> int:
    """Low for nodes that have come far and have used few writes of unknown outcome."""
    return PRICE_OF_UNKNOWN * node.used.bit_count() - node.base - node.mask.bit_count()


def _walk(register: Register, max_steps: int, cost: Callable[[Node], int]) -> Verdict:
    """Lowest cost first, then the newest node first, until every known outcome is explained."""
    memory = _Memory()
    heap = [(0, 0, root) for root in register.roots()]
    added = 0
    for _ in range(max_steps):
        if not heap:
            return Verdict.VIOLATION
        node = heapq.heappop(heap)[2]
        if register.is_complete(node):
            return Verdict.LINEARIZABLE
        children = [child for child in register.children(node) if memory.is_new(child)]
        for child in reversed(children):
            added -= 1
            heapq.heappush(heap, (cost(child), added, child))
    return Verdict.UNDECIDED


class _Memory:
    """The nodes that have been met."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, int, Value], list[int]] = {}

    def is_new(self, node: Node) -> bool:
        """Remember `node`; False if one was met that had no more of the unknown writes used."""
        met = self._used.setdefault((node.base, node.mask, node.value), [])
        if any(used & node.used == used for used in met):
            return False
        met.append(node.used)
        return True


# --- what to tell ----------------------------------------------------------------------------


def _explain(operations: list[Operation], max_steps: int) -> str:
    """Name the first reply by which the history cannot be explained any more."""
    replies = sorted(op.reply for op in operations if op.reply is not None)
    earliest = bisect_left(
        replies,
        True,
        hi=len(replies) - 1,  # by the last one it cannot be: that has been found already
        key=lambda time: _search(_until(operations, time), max_steps) is Verdict.VIOLATION,
    )
    culprits = [_describe(op) for op in operations if op.reply == replies[earliest]]
    return f"no order of what was called up to then explains {' or '.join(culprits)}"


def _until(operations: list[Operation], time: int) -> list[Operation]:
    """The history as it was known at `time`: what had no reply yet is open."""
    return [
        op if op.reply is not None and op.reply <= time else replace(op, reply=None)
        for op in operations
        if op.call <= time
    ]


def _describe(operation: Operation) -> str:
    return f"client {operation.client}'s {_what(operation)} (µs {operation.call}-{operation.reply})"


def _what(operation: Operation) -> str:
    match operation.action:
        case Action.PUT:
            return f"put of {operation.argument!r}"
        case Action.GET:
            return f"get, which returned {operation.result!r}"
        case Action.DELETE:
            return "delete"
        case Action.CAS:
            end = "succeeded" if operation.succeeded else f"found {operation.result!r}"
            return f"swap of {operation.expected!r} for {operation.argument!r}, which {end}"
