"""How much one client may have unfinished at once."""

from client.errors import QueueFull
from client.ticket import Ticket

MAX_OPERATIONS = 8192
MAX_BYTES = 64 * 1024 * 1024


class Admission:
    """Counts the operations that somebody waits for, and their bytes."""

    __slots__ = ("_bytes", "_operations")

    def __init__(self) -> None:
        self._operations = 0
        self._bytes = 0

    def admit(self, ticket: Ticket) -> None:
        """Count `ticket`. Raises QueueFull."""
        size = len(ticket.operation)
        if self._operations >= MAX_OPERATIONS or self._bytes + size > MAX_BYTES:
            raise QueueFull("too many operations of this client are unfinished")
        self._operations += 1
        self._bytes += size

    def release(self, ticket: Ticket) -> None:
        """`ticket` is finished or abandoned."""
        self._operations -= 1
        self._bytes -= len(ticket.operation)
