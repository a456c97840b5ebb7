"""The legal orders of one register's operations, as a graph that is walked node by node.

A node says which operations have been put in order, and the value that they leave; its children are
the ways to go on. These rules keep the graph small, and none of them loses the last legal order:

- a read that fits the value is taken at once: it changes nothing for the others;
- a value that no remaining operation sees is as good as any other such value: VOID;
- a write whose value no remaining operation sees is taken right before the next unconditional
  write, which hides it;
- of any other write the value is seen by what comes next, or it is hidden in this way as well;
- a write of unknown outcome that nothing sees next has not taken effect;
- of writes of unknown outcome that are alike, the one that was called first is used first;
- a value that a remaining operation has seen is given up only if it can come again in time, and as
  often as it is swapped away.
"""

from collections.abc import Iterator
from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from pbft.simulation.history import Action, Operation


class Void(Enum):
    """The type of VOID: a value that nobody sees."""

    VOID = "void"


VOID = Void.VOID
Value = bytes | None | Void


class Node(Struct, frozen=True):
    """What has been put in order, and the value that it leaves.

    Of the operations with an outcome, in the order of their calls, all below number `base` are done
    and those in `mask` (bit 0 is `base`, and is clear); of the others, those in `used`.
    """

    base: int
    mask: int
    used: int
    value: Value

    def having(self, number: int) -> "Node":
        """With operation `number` done, the value as it was."""
        mask = self.mask | 1 << (number - self.base)
        done = (~mask & mask + 1).bit_length() - 1
        return Node(self.base + done, mask >> done, self.used, self.value)


def _writes(operation: Operation) -> bool:
    """Whether it leaves `argument` behind (None for a delete), if it takes effect."""
    if operation.action is Action.CAS:
        return operation.succeeded or operation.reply is None
    return operation.action is not Action.GET


def _conditional(operation: Operation) -> bool:
    return operation.action is Action.CAS


def _sees(operation: Operation) -> tuple[Value, ...]:
    """The value that it must find to have had its outcome, if any."""
    if operation.action is Action.CAS:
        return (operation.expected if _writes(operation) else operation.result,)
    return (operation.result,) if operation.action is Action.GET else ()


def _fits(operation: Operation, value: Value) -> bool:
    """Whether `operation` may have had its outcome where it found `value`."""
    if operation.action is Action.CAS and not _writes(operation):
        return operation.result == value != operation.expected
    return all(seen == value for seen in _sees(operation))


class _Index:
    """Which operations, as bit masks over their list, see a value, take it away, or bring it."""

    def __init__(self, operations: list[Operation]) -> None:
        self.readers: dict[Value, int] = {}
        self.takers: dict[Value, int] = {}
        self.writers: dict[Value, int] = {}
        for number, operation in enumerate(operations):
            bit = 1 << number
            for value in _sees(operation):
                self.readers[value] = self.readers.get(value, 0) | bit
            if _writes(operation) and operation.argument not in _sees(operation):
                for value in _sees(operation):
                    self.takers[value] = self.takers.get(value, 0) | bit
                value = operation.argument
                self.writers[value] = self.writers.get(value, 0) | bit


class Register:
    """The operations under one key, which is absent at first."""

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

    def roots(self) -> list[Node]:
        """Where every order begins: one node, or none if some value is seen that cannot be."""
        root = Node(0, 0, 0, None)
        if any(v is not None and not self._comes_again(root, v) for v in self._index.readers):
            return []
        return [self._settle(root)]

    def is_complete(self, node: Node) -> bool:
        """Whether every known outcome is explained."""
        return self._hide(node).base == len(self._done)

    def children(self, node: Node) -> Iterator[Node]:
        """The ways to go on, those first that end soonest."""
        hidden = self._hide(node)
        for child in (*self._swaps(node), *self._puts(node, hidden), *self._unknown(node, hidden)):
            yield self._settle(child)

    # -- what is taken without a choice

    def _settle(self, node: Node) -> Node:
        """Take the reads that fit; a value that nobody sees after that is VOID."""
        node = self._take_reads(node)
        if node.value is VOID or not self._wanted(node, node.value):
            node = self._hide(replace(node, value=VOID))
        return node

    def _take_reads(self, node: Node) -> Node:
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

    def _hide(self, node: Node) -> Node:
        """Take every unconditional write that nobody needs: the next one hides them."""
        while True:
            hidden = [number for number in self._candidates(node) if self._hideable(node, number)]
            if not hidden:
                return node
            for number in hidden:
                node = node.having(number)

    def _hideable(self, node: Node, number: int) -> bool:
        operation = self._done[number]
        return self._is_put(number) and not self._wanted(node, operation.argument)

    # -- what may follow

    def _swaps(self, node: Node) -> Iterator[Node]:
        """The swaps that are known to have succeeded, and can do so now."""
        for number in self._soonest(node):
            operation = self._done[number]
            if _conditional(operation) and _writes(operation) and _fits(operation, node.value):
                yield from self._after(node, node.having(number), operation.argument)

    def _puts(self, node: Node, hidden: Node) -> Iterator[Node]:
        """The known unconditional writes: seen at once, or else hidden."""
        numbers = [number for number in self._soonest(hidden) if self._is_put(number)]
        for number in numbers:
            value = self._done[number].argument
            after = hidden.having(number)
            if self._seen_next(after, value):
                yield from self._after(node, after, value)
        for number in numbers:
            after = hidden.having(number)
            if self._comes_again(after, self._done[number].argument):
                yield from self._after(node, after, VOID)

    def _unknown(self, node: Node, hidden: Node) -> Iterator[Node]:
        """The writes of unknown outcome, where they explain what comes next."""
        for number in self._unused(node.used):
            operation = self._open[number]
            start = node if _conditional(operation) else hidden
            if _fits(operation, start.value) and self._callable(start, operation):
                after = replace(start, used=node.used | 1 << number)
                if self._seen_next(after, operation.argument):
                    yield from self._after(node, after, operation.argument)

    def _unused(self, used: int) -> Iterator[int]:
        """The first unused one of each kind."""
        met: set[tuple[bool, Value, Value]] = set()
        for number, operation in enumerate(self._open):
            kind = (_conditional(operation), operation.expected, operation.argument)
            if not used >> number & 1 and kind not in met:
                met.add(kind)
                yield number

    def _after(self, before: Node, node: Node, value: Value) -> Iterator[Node]:
        """`node` with `value` in place of what `before` has, if that may be given up."""
        if before.value in (value, VOID) or self._comes_again(node, before.value):
            yield replace(node, value=value)

    # -- what the rules ask

    def _is_put(self, number: int) -> bool:
        return _writes(self._done[number]) and not _conditional(self._done[number])

    def _candidates(self, node: Node) -> list[int]:
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

    def _soonest(self, node: Node) -> list[int]:
        return sorted(self._candidates(node), key=self._replies.__getitem__)

    def _callable(self, node: Node, operation: Operation) -> bool:
        """Whether no remaining operation has had its reply before the call of `operation`."""
        return all(operation.call <= self._replies[n] for n in self._candidates(node))

    def _wanted(self, node: Node, value: Value) -> bool:
        """Whether a remaining operation sees `value`."""
        if self._index.readers.get(value, 0) >> node.base & ~node.mask:
            return True
        return bool(self._open_index.readers.get(value, 0) & ~node.used)

    def _seen_next(self, node: Node, value: Value) -> bool:
        """Whether something that sees `value` may come next."""
        if any(value in _sees(self._done[number]) for number in self._candidates(node)):
            return True
        return bool(self._open_index.readers.get(value, 0) & ~node.used)

    def _comes_again(self, node: Node, value: Value) -> bool:
        """Whether whatever has seen `value` can still do so, though another takes its place."""
        readers = self._index.readers.get(value, 0) >> node.base & ~node.mask
        if not readers:
            return True
        writers = self._index.writers.get(value, 0) >> node.base & ~node.mask
        spare = self._open_index.writers.get(value, 0) & ~node.used
        takers = self._index.takers.get(value, 0) >> node.base & ~node.mask
        if takers.bit_count() > writers.bit_count() + spare.bit_count():
            return False
        deadline = self._deadline(readers, node.base)
        known = bool(writers) and self._done[node.base + _lowest(writers)].call <= deadline
        return known or (bool(spare) and self._open[_lowest(spare)].call <= deadline)

    def _deadline(self, mask: int, base: int) -> float:
        """The earliest reply of the operations in `mask`."""
        earliest = inf
        while mask:
            number = base + _lowest(mask)
            if self._done[number].call > earliest:
                break
            earliest = min(earliest, self._replies[number])
            mask &= mask - 1
        return earliest


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
