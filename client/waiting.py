"""Operations that wait to be sent: first come, first served, taken out in bundles."""

from collections import OrderedDict

from client.ticket import Progress, Ticket


class WaitingOperations:
    """A queue of tickets; how many there may be is decided where they are admitted."""

    __slots__ = ("_tickets",)

    def __init__(self) -> None:
        self._tickets: OrderedDict[int, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def first(self) -> int | None:
        """The number of the ticket that is next, None when nothing waits."""
        return next(iter(self._tickets), None)

    def add(self, ticket: Ticket) -> None:
        """Append a new operation."""
        self._tickets[ticket.number] = ticket

    def put_back(self, ticket: Ticket) -> None:
        """Queue an operation that was sent in vain, ahead of all others."""
        ticket.progress = Progress.WAITING
        self._tickets[ticket.number] = ticket
        self._tickets.move_to_end(ticket.number, last=False)

    def remove(self, ticket: Ticket) -> None:
        """Forget an operation, if it is here."""
        self._tickets.pop(ticket.number, None)

    def take(self, max_operations: int, max_bytes: int) -> tuple[Ticket, ...]:
        """The next operations, as many as fit: at least one when any waits. They count as sent."""
        taken: list[Ticket] = []
        size = 0
        while self._tickets and len(taken) < max_operations:
            ticket = next(iter(self._tickets.values()))
            size += len(ticket.operation)
            if taken and (size > max_bytes or ticket.alone or taken[0].alone):
                break
            self._tickets.popitem(last=False)
            ticket.progress = Progress.SENT
            taken.append(ticket)
        return tuple(taken)
