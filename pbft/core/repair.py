"""What goes out again, or because it was asked for: within a byte budget per peer (R25)."""

from pbft.codec import encode
from pbft.core.budget import Budgets
from pbft.core.context import Instant
from pbft.core.output import Outbox
from pbft.messages import Packet

BYTES_PER_SECOND, BURST_BYTES = 32 * 1024 * 1024, 8 * 1024 * 1024


class Repair:
    """The way out for everything large that a peer has missed."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._budgets = Budgets[int](BYTES_PER_SECOND, BURST_BYTES)

    def send(self, replica: int, packet: Packet, now: Instant) -> bool:
        """Send `packet` to one peer, unless its budget is used up."""
        if not self._budgets.spend(replica, len(encode(packet)), now.mono):
            self._outbox.reject("repair-budget", replica)
            return False
        self._outbox.send(replica, packet)
        return True
