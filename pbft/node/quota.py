"""The replicated byte quota: the only reason why an operation is refused for lack of space (R47).

What counts is the state's size after the operation, which follows from the state's content alone
and so is equal on every replica. Whoever does not add to a state that is too large is never
refused; what makes room (a deletion in a store that keeps history adds before it frees) has a
reserve of its own, and so has the application's tick, which is not held to the quota.
"""

from collections.abc import Callable

from pbft.config import Parameters
from pbft.messages import REFUSED, OperationResult
from pbft.storage.state_size import StateSize


def reserve_bytes(parameters: Parameters) -> int:
    """What operations that make room may add above the quota: enough to delete all keys of the
    key-value store, where each deletion is at first one more entry of its history."""
    return parameters.max_state_bytes * 3 // 5


class Quota:
    """`makes_room` asks the application about an operation; it is asked only above the quota."""

    def __init__(self, parameters: Parameters, makes_room: Callable[[bytes], bool]) -> None:
        self._most = parameters.max_state_bytes
        self._with_reserve = self._most + reserve_bytes(parameters)
        self._makes_room = makes_room
        text = f"the state has reached its quota of {self._most} bytes: make room first"
        self.refusal = OperationResult(REFUSED, text.encode())

    def bound(self, size: StateSize) -> int:
        """What the state may have after the next operation: the quota, or what it has already."""
        return size.exact() if size.exceeds(self._most) else self._most

    def refuses(self, operation: bytes, size: StateSize, bound: int) -> bool:
        """Whether the operation, which has just been applied, has added too much."""
        if not size.exceeds(bound):
            return False
        return not self._makes_room(operation) or size.exceeds(max(bound, self._with_reserve))
