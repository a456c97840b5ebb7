"""One operation's way through a session: its ticket, and what a session hands to its shell."""

from dataclasses import dataclass, field
from enum import Enum

from client.errors import ClientError


class Progress(Enum):
    """How far an operation has come."""

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Ticket:
    """One submitted operation. `deadline` is in µs on the time scale of the session's caller."""

    number: int
    operation: bytes
    read_only: bool = False
    deadline: int | None = None
    progress: Progress = Progress.WAITING
    alone: bool = False  # it found no room beside others, and shares no bundle any more
    at_least: int = 0  # of a query: the sequence number that its state must have reached

    @property
    def done(self) -> bool:
        """Whether nobody waits for it any more: it is completed or abandoned."""
        return self.progress is Progress.DONE


@dataclass(frozen=True, slots=True)
class Completion:
    """The outcome of `ticket`: the result's bytes, or the error to raise."""

    ticket: Ticket
    result: bytes | ClientError


@dataclass(slots=True)
class Output:
    """What the shell must do: send each packet to its replica, hand out the completions, and call
    `poll` again no later than at `wake_at` (µs; None when nothing is timed)."""

    sends: list[tuple[int, bytes]] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    wake_at: int | None = None

    def send(self, replica: int, packet: bytes) -> None:
        """Queue one packet."""
        self.sends.append((replica, packet))

    def complete(self, ticket: Ticket, result: bytes | ClientError) -> None:
        """Finish `ticket` unless it is finished or abandoned already."""
        if not ticket.done:
            ticket.progress = Progress.DONE
            self.completions.append(Completion(ticket, result))
