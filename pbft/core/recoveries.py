"""Helping replicas that have forgotten (R41): a checkpoint and a view that they can reach.

A RECOVERY names what must be passed. While its checkpoint is still to come, the primary may propose
empty batches up to it, and a primary that lets nothing happen is suspected; after that, the view
must change once. A liar gains little: it can name no more than a window beyond what was executed
and no view beyond this one, and a new goal only once in a while (`recovery_interval_ms`). In that
time no more than w primaries are blamed for it, of which one is correct and helps.

Whom a liar has told what is its own business, and a batch that some refuse blocks all that follow.
So the primary passes on the RECOVERY that it goes by, and its backups go by it as well, whatever
they have heard themselves.
"""

from collections.abc import Iterator

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.messages import Envelope, Recovery, Verified


class _Granted(Struct, frozen=True):
    above_seq: int
    above_view: int
    view: int  # that of this replica
    at: int
    envelope: Envelope


class Recoveries:
    """The goal of each replica that recovers."""

    def __init__(self, context: Context) -> None:
        self._interval = context.parameters.checkpoint_interval
        self._window = context.parameters.window
        self._pause = microseconds(context.parameters.recovery_interval_ms)
        self._blamed = context.quorum.w
        self._granted: dict[int, _Granted] = {}
        self._passed_on: dict[int, _Granted] = {}  # by a primary
        self._told: dict[int, int] = {}  # in which view this primary has passed it on

    def refusal(
        self, message: Verified[Recovery], reached: int, view: int, now: Instant
    ) -> str | None:
        """Why this RECOVERY gets no help; None if it does from now on.

        `reached` is the highest sequence number executed here, `view` the one that this replica is
        in.
        """
        body = message.body
        known = self._granted.get(body.replica)
        soon = known is not None and now.mono < known.at + self._pause
        wanted = _Granted(body.above_seq, body.above_view, view, now.mono, message.envelope)
        if known and soon and _within(body, known):
            self._granted[body.replica] = _since(known, wanted)
            return None
        if body.above_seq > reached + self._window or body.above_view > view:
            return "recovery-out-of-reach"
        if soon:
            return "recovery-too-soon"
        self._granted[body.replica] = wanted
        self._told.pop(body.replica, None)
        return None

    def blames(self, replica: int, view: int) -> bool:
        """Whether the primary of `view` may be suspected since `replica` does not recover."""
        granted = self._granted.get(replica)
        return granted is not None and view < granted.view + self._blamed

    # -- what all must agree about

    def to_pass_on(self, stable_seq: int, view: int) -> Iterator[Envelope]:
        """What the backups of `view` have to know before the primary proposes empty batches."""
        for replica, granted in sorted(self._granted.items()):
            if granted.above_seq >= stable_seq and self._told.get(replica) != view:
                self._told[replica] = view
                yield granted.envelope

    def pass_on_again(self) -> None:
        """It may have been lost."""
        self._told.clear()

    def on_passed_on(
        self, message: Verified[Recovery], reached: int, view: int, now: Instant
    ) -> str | None:
        """The primary of `view` goes by this RECOVERY; why this replica does not, or None.

        In half the time in which a correct primary may help again, as clocks are not exact.
        """
        body = message.body
        known = self._passed_on.get(body.replica)
        if known and known.view == view:
            if body.above_seq <= known.above_seq:
                return None
            if now.mono < known.at + self._pause // 2:
                return "recovery-too-soon"
        if body.above_seq > reached + self._window:
            return "recovery-out-of-reach"
        self._passed_on[body.replica] = _Granted(
            body.above_seq, body.above_view, view, now.mono, message.envelope
        )
        return None

    def fill_up_to(self, stable_seq: int) -> int:
        """Up to which sequence number to propose empty batches, the stable one being this."""
        return self._above(self._granted, stable_seq)

    def accept_up_to(self, stable_seq: int) -> int:
        """Up to which sequence number empty batches are in order."""
        return max(self.fill_up_to(stable_seq), self._above(self._passed_on, stable_seq))

    def _above(self, granted: dict[int, _Granted], stable_seq: int) -> int:
        goals = [one.above_seq for one in granted.values() if one.above_seq >= stable_seq]
        return (max(goals) // self._interval + 1) * self._interval if goals else 0


def _within(body: Recovery, known: _Granted) -> bool:
    return body.above_seq <= known.above_seq and body.above_view <= known.above_view


def _since(known: _Granted, lower: _Granted) -> _Granted:
    return _Granted(lower.above_seq, lower.above_view, known.view, known.at, lower.envelope)
