"""Helping replicas that have forgotten (R41): a checkpoint and a view that they can reach.

A RECOVERY names what must be passed. While its checkpoint is still to come, the primary may propose
empty batches up to it, and a primary that lets nothing happen is suspected; after that, the view
must change once. A liar gains little: it can name no more than a window beyond what was executed
and no view beyond this one, and a new goal only once in a while (`recovery_interval_ms`).
"""

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.messages import Recovery


class _Granted(Struct, frozen=True):
    above_seq: int
    above_view: int
    at: int


class Recoveries:
    """The goal of each replica that recovers."""

    def __init__(self, context: Context) -> None:
        self._interval = context.parameters.checkpoint_interval
        self._window = context.parameters.window
        self._pause = microseconds(context.parameters.recovery_interval_ms)
        self._granted: dict[int, _Granted] = {}

    def refusal(self, body: Recovery, reached: int, view: int, now: Instant) -> str | None:
        """Why this RECOVERY gets no help; None if it does from now on.

        `reached` is the highest sequence number executed here, `view` the one that this replica is
        in.
        """
        known = self._granted.get(body.replica)
        if known and body.above_seq <= known.above_seq and body.above_view <= known.above_view:
            self._granted[body.replica] = _Granted(body.above_seq, body.above_view, known.at)
            return None
        if body.above_seq > reached + self._window or body.above_view > view:
            return "recovery-out-of-reach"
        if known and now.mono < known.at + self._pause:
            return "recovery-too-soon"
        self._granted[body.replica] = _Granted(body.above_seq, body.above_view, now.mono)
        return None

    def fill_up_to(self, stable_seq: int) -> int:
        """Up to which sequence number empty batches are in order, the stable one being this."""
        goals = [granted.above_seq for granted in self._granted.values()]
        above = max((goal for goal in goals if goal >= stable_seq), default=-1)
        return 0 if above < 0 else (above // self._interval + 1) * self._interval
