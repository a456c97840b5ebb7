"""A replica that may have forgotten votes takes part again, in silence at first (R41, T 4.3).

Once a stable checkpoint lies above everything that it may have voted for, no certificate that it
has forgotten can matter any more; once it is in a view above every one that it may have left, it
can break no promise to vote there no more. Until then it says so with every heartbeat (RECOVERY),
and its peers help: see `recoveries`.
"""

from pbft.core.context import Context
from pbft.core.output import Outbox
from pbft.core.records import AmnesiaRecord, amnesia_write
from pbft.messages import Recovery


class Amnesia:
    """What this replica may have forgotten, until it no longer matters."""

    def __init__(self, context: Context, outbox: Outbox) -> None:
        self._context = context
        self._outbox = outbox
        self.goal: AmnesiaRecord | None = None

    def restore(self, goal: AmnesiaRecord | None) -> None:
        """Take up what was found on disk."""
        self.goal = goal

    def must_pass(self, seq: int, view: int) -> None:
        """Something was forgotten; a goal that is lower replaces the one that is known."""
        goal = self.goal or AmnesiaRecord(seq, view)
        lower = AmnesiaRecord(min(seq, goal.above_seq), min(view, goal.above_view))
        if lower != self.goal:
            self.goal = lower
            self._outbox.persist.append(amnesia_write(lower))

    def lost_more(self) -> None:
        """The disk has forgotten since it noted its goal: that one is too low now."""
        self.goal = None

    def ask(self, number: int) -> None:
        """Ask for help under the `number` of this start."""
        if self.goal is not None:
            body = Recovery(self._context.id, number, self.goal.above_seq, self.goal.above_view)
            self._outbox.send(None, self._context.sign(body).envelope)

    def over(self, settled_seq: int, view: int) -> bool:
        """Whether it is over: `settled_seq` is stable and executed here, `view` was entered."""
        goal = self.goal
        return goal is not None and settled_seq > goal.above_seq and view > goal.above_view

    def end(self) -> None:
        """Nothing that was forgotten matters any more."""
        self.goal = None
        self._outbox.persist.append(amnesia_write(None))
