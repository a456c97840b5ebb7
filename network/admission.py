"""Who gets in before it has said who it is: a bounded number in all, and from each address."""

from network.limits import Limits

TOO_MANY_UNAUTHENTICATED = "too-many-unauthenticated"
TOO_MANY_FROM_ADDRESS = "too-many-from-address"


class Admission:
    """Counts unauthenticated connections. Holds nothing for addresses that have none."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = 0
        self._by_address: dict[str, int] = {}

    def admit(self, address: str) -> str | None:
        """Take a place for a connection from `address`, or say which limit forbids it."""
        if self._total >= self._limits.max_unauthenticated:
            return TOO_MANY_UNAUTHENTICATED
        count = self._by_address.get(address, 0)
        if count >= self._limits.max_unauthenticated_per_address:
            return TOO_MANY_FROM_ADDRESS
        self._total += 1
        self._by_address[address] = count + 1
        return None

    def release(self, address: str) -> None:
        """Give a place back: the connection has authenticated, or is gone."""
        self._total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
