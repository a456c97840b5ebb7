"""Is a history linearizable? (Herlihy & Wing, TOPLAS 1990.)

Each key is checked on its own (locality). The search is Wing & Gong's (1993) with Lowe's memory of
(linearised set, state) pairs (2017), as in Knossos and Porcupine, kept on a list instead of the
call stack. Three facts about registers keep it short; none of them loses a legal order:

- a read that fits the value is taken at once: it changes nothing for the others;
- a write whose value no remaining read has seen is taken right before the next unconditional write,
  which hides it;
- a value that a remaining read has seen, and that nobody will write again, is not overwritten.

Two operations whose intervals touch in one microsecond count as concurrent.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from pbft.simulation.history import Action, Operation

MAX_STEPS = 200_000
Value = bytes | None


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
        verdict = _Search(operations).run(max_steps)
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


def _writes(operation: Operation) -> bool:
    """Whether it leaves `argument` behind (None for a delete), if it takes effect."""
    if operation.action is Action.CAS:
        return operation.succeeded or operation.reply is None
    return operation.action is not Action.GET


def _conditional(operation: Operation) -> bool:
    return operation.action is Action.CAS


def _seen(operation: Operation) -> tuple[Value, ...]:
    """The value that it must find to have had its outcome, if any."""
    if operation.action is Action.CAS:
        return (operation.expected if _writes(operation) else operation.result,)
    return (operation.result,) if operation.action is Action.GET else ()


def _fits(operation: Operation, value: Value) -> bool:
    """Whether `operation` may have had its outcome where it found `value`."""
    if operation.action is Action.CAS and not _writes(operation):
        return operation.result == value != operation.expected
    return all(seen == value for seen in _seen(operation))


class _Index:
    """Which operations (as bit masks over their list) read a value, and which write it."""

    def __init__(self, operations: list[Operation]) -> None:
        self._readers: dict[Value, int] = {}
        self._writers: dict[Value, int] = {}
        for number, operation in enumerate(operations):
            bit = 1 << number
            for value in _seen(operation):
                self._readers[value] = self._readers.get(value, 0) | bit
            if _writes(operation):
                value = operation.argument
                self._writers[value] = self._writers.get(value, 0) | bit

    def readers(self, value: Value, base: int, mask: int) -> int:
        """Those that see `value`, from number `base` on, without `mask` (whose bit 0 is `base`)."""
        return self._readers.get(value, 0) >> base & ~mask

    def writers(self, value: Value, base: int, mask: int) -> int:
        """Those that write `value`, likewise."""
        return self._writers.get(value, 0) >> base & ~mask

    def read_values(self) -> tuple[Value, ...]:
        """Every value that is read."""
        return tuple(self._readers)


class _Node(Struct, frozen=True):
    """A point of the search: what has been linearised, and the value that it leaves.

    Of the operations with an outcome, in the order of their calls, all below number `base` are done
    and those in `mask` (bit 0 is `base`, and is clear); of the others, those in `used`.
    """

    base: int
    mask: int
    used: int
    value: Value

    def having(self, number: int) -> "_Node":
        """With operation `number` done, the value as it was."""
        mask = self.mask | 1 << (number - self.base)
        done = (~mask & mask + 1).bit_length() - 1
        return _Node(self.base + done, mask >> done, self.used, self.value)


class _Search:
    """The search under one key."""

    def __init__(self, operations: list[Operation]) -> None:
        self._done = sorted(
            (op for op in operations if op.reply is not None), key=lambda op: (op.call, op.reply)
        )
        self._replies = [op.call if op.reply is None else op.reply for op in self._done]
        self._index = _Index(self._done)
        self._open = sorted(
            (op for op in operations if op.reply is None and _writes(op)), key=lambda op: op.call
        )
        self._open_index = _Index(self._open)
        self._known: dict[tuple[int, int, Value], list[int]] = {}

    def run(self, max_steps: int) -> Verdict:
        """Walk the graph of nodes depth first, until every known outcome is explained."""
        if self._never_written():
            return Verdict.VIOLATION
        stack = [_Node(0, 0, 0, None)]
        for _ in range(max_steps):
            if not stack:
                return Verdict.VIOLATION
            node = self._take_reads(stack.pop())
            hidden = self._hide_writes(node)
            if hidden.base == len(self._done):
                return Verdict.LINEARIZABLE
            children = [child for child in self._children(node, hidden) if self._is_new(child)]
            stack.extend(reversed(children))
        return Verdict.UNDECIDED

    def _is_new(self, node: _Node) -> bool:
        """Remember `node`; False if one was met that had no more of the open operations used."""
        met = self._known.setdefault((node.base, node.mask, node.value), [])
        if any(used & node.used == used for used in met):
            return False
        met.append(node.used)
        return True

    def _never_written(self) -> bool:
        """Whether a value was read that nobody writes: then there is nothing to search."""
        start = _Node(0, 0, 0, None)
        values = self._index.read_values()
        return any(value is not None and not self._writable(start, value) for value in values)

    # -- the graph

    def _candidates(self, node: _Node) -> list[int]:
        """The operations that may be next: nothing that is left had its reply before their call."""
        found: list[int] = []
        taken, bound = node.mask, inf
        while True:
            lowest = ~taken & taken + 1
            number = node.base + lowest.bit_length() - 1
            if number >= len(self._done) or self._done[number].call > bound:
                return found
            found.append(number)
            bound = min(bound, self._replies[number])
            taken |= lowest

    def _take_reads(self, node: _Node) -> _Node:
        while True:
            fitting = [
                number
                for number in self._candidates(node)
                if not _writes(self._done[number]) and _fits(self._done[number], node.value)
            ]
            if not fitting:
                return node
            for number in fitting:
                node = node.having(number)

    def _hide_writes(self, node: _Node) -> _Node:
        """Take every unconditional write that nobody needs: the next one hides them."""
        while True:
            hidden = [number for number in self._candidates(node) if self._hideable(node, number)]
            if not hidden:
                return node
            for number in hidden:
                node = node.having(number)

    def _hideable(self, node: _Node, number: int) -> bool:
        operation = self._done[number]
        if not _writes(operation) or _conditional(operation):
            return False
        return not self._wanted(node, operation.argument)

    def _wanted(self, node: _Node, value: Value) -> bool:
        """Whether a remaining operation sees `value`."""
        if self._index.readers(value, node.base, node.mask):
            return True
        return bool(self._open_index.readers(value, 0, node.used))

    def _children(self, node: _Node, hidden: _Node) -> Iterator[_Node]:
        """One per write that may set the next value that is seen, soonest reply first.

        A conditional write comes right after `node`, an unconditional one after `hidden`.
        """
        for start, conditional in ((node, True), (hidden, False)):
            candidates = self._candidates(start)
            for number in sorted(candidates, key=self._replies.__getitem__):
                operation = self._done[number]
                if _conditional(operation) is conditional and self._useful(node, operation):
                    yield from self._written(node, start.having(number), operation.argument)
        for number, operation in enumerate(self._open):
            start = node if _conditional(operation) else hidden
            unused = not node.used >> number & 1
            if unused and self._callable(start, operation) and self._useful(node, operation):
                after = _Node(start.base, start.mask, node.used | 1 << number, node.value)
                yield from self._written(node, after, operation.argument)

    def _callable(self, node: _Node, operation: Operation) -> bool:
        """Whether no remaining operation has had its reply before the call of `operation`."""
        return all(operation.call <= self._replies[n] for n in self._candidates(node))

    def _useful(self, node: _Node, operation: Operation) -> bool:
        if not _writes(operation) or not _fits(operation, node.value):
            return False
        # A swap that is known to have succeeded is due, whether its value was seen or not.
        due = operation.reply is not None and _conditional(operation)
        return due or self._wanted(node, operation.argument)

    def _written(self, before: _Node, after: _Node, value: Value) -> Iterator[_Node]:
        """`after` with its new value, unless the old one is needed and will not come again."""
        old = before.value
        lost = old != value and self._index.readers(old, after.base, after.mask)
        if lost and not self._writable(after, old):
            return
        yield _Node(after.base, after.mask, after.used, value)

    def _writable(self, node: _Node, value: Value) -> bool:
        if self._index.writers(value, node.base, node.mask):
            return True
        return bool(self._open_index.writers(value, 0, node.used))


# --- what to tell ----------------------------------------------------------------------------


def _explain(operations: list[Operation], max_steps: int) -> str:
    """Name the first reply by which the history cannot be explained any more."""
    replies = sorted(op.reply for op in operations if op.reply is not None)
    moment = replies[
        bisect_left(
            replies,
            True,
            key=lambda time: _Search(_until(operations, time)).run(max_steps) is Verdict.VIOLATION,
        )
    ]
    culprits = [_describe(op) for op in operations if op.reply == moment]
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
