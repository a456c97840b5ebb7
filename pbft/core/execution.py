"""The order of execution: each committed batch once, in sequence (R8)."""

from pbft.core.context import Context
from pbft.core.log import Log
from pbft.core.output import Execute, Outbox

AHEAD = 8
"""How many batches, or the pipeline's depth, may be handed out and not executed yet."""


class ExecutionQueue:
    """Hands committed batches to the shell, one sequence number after the other."""

    def __init__(self, context: Context, log: Log, outbox: Outbox) -> None:
        self._interval = context.parameters.checkpoint_interval
        self._ahead = max(AHEAD, context.parameters.pipeline_depth)
        self._log = log
        self._outbox = outbox
        self.executed = 0  # the application's state is the one right after this
        self.handed = 0  # handed out for execution
        self._held = 0
        self.paused = False  # the state is being replaced (R24)

    def hand_out(self, view: int) -> None:
        """Hand out the batches whose turn has come; a few at a time, so that messages are heard."""
        while not self.paused and self.handed - self.executed < self._ahead:
            slot = self._log.get(self.handed + 1)
            content = slot.committed if slot else None
            if content is None:
                return
            self.handed += 1
            checkpoint = self.handed % self._interval == 0
            self._outbox.execute.append(Execute(self.handed, view, content, checkpoint))

    def held_after(self, seq: int) -> int:
        """Up to which sequence number committed batches follow `seq` without a gap."""
        self._held = max(self._held, seq)
        while (slot := self._log.get(self._held + 1)) and slot.committed:
            self._held += 1
        return self._held

    def jump(self, seq: int) -> None:
        """The state is now the one right after `seq`, however it got there."""
        self.executed = self.handed = seq
        self.paused = False

    @property
    def last_checkpoint(self) -> int:
        """The highest sequence number at or below which the state is flushed."""
        return self.executed - self.executed % self._interval
