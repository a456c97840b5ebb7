"""How much somebody may cost: a token bucket on the core's own time (R25, R43)."""

from collections.abc import Hashable
from typing import Generic, TypeVar


class Budget:
    """`per_second` units, of which at most `burst` can be saved up."""

    __slots__ = ("_burst", "_left", "_per_second", "_since")

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst * 1_000_000
        self._since: int | None = None

    def spend(self, size: int, now: int) -> bool:
        """Whether `size` units may be spent at `now` (µs); the last spender may overdraw."""
        if self._since is not None:
            earned = (now - self._since) * self._per_second
            self._left = min(self._burst * 1_000_000, self._left + earned)
        self._since = now
        if self._left <= 0:
            return False
        self._left -= size * 1_000_000
        return True

    def charge(self, size: int) -> None:
        """Take `size` units, whether they are there or not."""
        self._left -= size * 1_000_000


K = TypeVar("K", bound=Hashable)


class Budgets(Generic[K]):
    """One budget for everybody. Whoever is named must be one of a known, bounded set."""

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._budgets: dict[K, Budget] = {}

    def spend(self, who: K, size: int, now: int) -> bool:
        """Whether `who` may cost `size` units more at `now` (µs)."""
        return self._of(who).spend(size, now)

    def charge(self, who: K, size: int) -> None:
        """Take what something has cost that `who` was allowed to have."""
        self._of(who).charge(size)

    def _of(self, who: K) -> Budget:
        budget = self._budgets.get(who)
        if budget is None:
            budget = self._budgets[who] = Budget(self._per_second, self._burst)
        return budget
