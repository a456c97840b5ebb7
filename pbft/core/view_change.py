"""Leaving a view, collecting VIEW-CHANGEs, entering the next (O4.4, O4.5.2)."""

from msgspec import Struct

from pbft.core import new_view
from pbft.core.certificates import InvalidCertificate
from pbft.core.context import Context, Instant, microseconds
from pbft.core.output import Outbox
from pbft.core.records import ViewRecord, view_write
from pbft.core.timers import Timers
from pbft.core.voting import VotingGate
from pbft.messages import (
    Envelope,
    NewView,
    PreparedProof,
    Proof,
    Verified,
    ViewChange,
)

NEW_VIEW, RESEND = "new-view", "view-change-again"


class Leave(Struct, frozen=True):
    """Leave for `view`: the caller gathers what the VIEW-CHANGE must say and calls `leave`."""

    view: int
    reason: str


class ViewInstalled(Struct, frozen=True):
    """A NEW-VIEW was accepted (or built) and is on its way to the disk."""

    view: int
    plan: new_view.Plan
    pre_prepares: tuple[Envelope, ...]


Fact = Leave | ViewInstalled


class ViewChanges:
    """Where this replica stands between views."""

    def __init__(self, context: Context, gate: VotingGate, timers: Timers, outbox: Outbox) -> None:
        parameters = context.parameters
        self._context = context
        self._quorum = context.quorum
        self._gate = gate
        self._timers = timers
        self._outbox = outbox
        self._base = microseconds(parameters.view_timeout_ms)
        self._cap = microseconds(parameters.view_timeout_cap_ms)
        self._resend_every = 5 * microseconds(parameters.heartbeat_interval_ms)
        self.view = 0
        self.active = True
        self.max_seq = 0
        self.failures = 0  # views in a row that brought nothing (R36)
        self._progressed = True
        self._changes: dict[int, Verified[ViewChange]] = {}
        self._own: Envelope | None = None
        self._opening: Envelope | None = None

    # -- leaving

    def suspected(self, view: int, reason: str) -> list[Fact]:
        """The primary of `view` has lost this replica's trust."""
        return [Leave(view + 1, reason)] if self.active and view == self.view else []

    def leave(
        self,
        view: int,
        stable: tuple[int, bytes, Proof],
        prepared: tuple[PreparedProof, ...],
        waiting: bool,
        now: Instant,
    ) -> None:
        """Build this replica's one VIEW-CHANGE for `view` and send it (R28, R39, R46).

        `waiting` says whether requests wait: then a view that executed nothing has failed.
        """
        self.failures += not self.active or (waiting and not self._progressed)
        self.view, self.active, self._opening = view, False, None
        own = self._gate.view_change(ViewChange(self._context.id, view, *stable, prepared))
        self._own = own.envelope
        self._persist()
        self._timers.stop(NEW_VIEW)
        self._timers.set(RESEND, now.mono + self._resend_every)

    def released(self, now: Instant) -> list[Fact]:
        """This replica may vote again: it follows those who have left, and opens what is its."""
        return self._join() or self._complete(now)

    def _persist(self) -> None:
        record = ViewRecord(self.view, self.active, self.max_seq, self._own, self._opening)
        self._outbox.persist.append(view_write(record))

    # -- collecting

    def on_view_change(self, message: Verified[ViewChange], now: Instant) -> list[Fact]:
        """Keep each replica's VIEW-CHANGE for the highest view (R6, R25)."""
        body = message.body
        known = self._changes.get(body.replica)
        if known is not None and known.body.view >= body.view:
            self._compare(known, message)
            return []
        if not self.wants_opening(body.view):
            return []
        self._changes[body.replica] = message
        return self._join() or self._complete(now)

    def wants_change(self, body: ViewChange) -> bool:
        """Whether a VIEW-CHANGE may tell something new."""
        known = self._changes.get(body.replica)
        if known is not None:
            return body.view >= known.body.view and body != known.body
        return self.wants_opening(body.view)

    def wants_opening(self, view: int) -> bool:
        """Whether `view` is still to be entered."""
        return view > self.view or (view == self.view and not self.active)

    def _compare(self, known: Verified[ViewChange], message: Verified[ViewChange]) -> None:
        if known.body.view == message.body.view and known.envelope != message.envelope:
            culprit = message.body.replica
            self._outbox.accuse("double-view-change", culprit, known.envelope, message.envelope)

    def _join(self) -> list[Fact]:
        """w replicas want higher views: so does a correct one; join the smallest (R35)."""
        wanted = sorted(m.body.view for m in self._changes.values() if m.body.view > self.view)
        if len(wanted) < self._quorum.w:
            return []
        return [Leave(wanted[0], "a weak quorum has left")]

    def _complete(self, now: Instant) -> list[Fact]:
        """q VIEW-CHANGEs for the view that is sought: the clock runs, its primary opens it."""
        if self.active:
            return []
        # Who has gone further counts for the clock as well: it will never come back to this view.
        reached = sum(m.body.view >= self.view for m in self._changes.values())
        if reached >= self._quorum.q:
            self._timers.start(NEW_VIEW, now.mono + self._wait())
        return self._open()

    def _for_view(self) -> list[Verified[ViewChange]]:
        messages = [self._changes[replica] for replica in sorted(self._changes)]
        return [message for message in messages if message.body.view == self.view]

    def _wait(self) -> int:
        return min(self._base << min(self.failures, 20), self._cap)

    def on_timer(self, name: str, now: Instant) -> list[Fact]:
        """NEW_VIEW: this view's primary has failed too. RESEND: say it again (R37)."""
        if name == NEW_VIEW:
            return [Leave(self.view + 1, "no new-view in time")]
        if self._own is not None:
            self._outbox.send(None, self._own)
        self._timers.set(RESEND, now.mono + self._resend_every)
        return []

    # -- entering

    def _open(self) -> list[Fact]:
        """Build the NEW-VIEW, if this is the primary of the view and q VIEW-CHANGEs are here."""
        leads = self._quorum.primary(self.view) == self._context.id
        chosen = self._for_view()[: self._quorum.q]
        if not leads or len(chosen) < self._quorum.q or self._gate.silent:
            return []
        plan = new_view.compute(self._quorum, [message.body for message in chosen])
        body, opening = self._gate.new_view(
            self.view,
            tuple(message.envelope for message in chosen),
            [(proposal.seq, proposal.digest) for proposal in plan.proposals],
        )
        return [self._install(body, opening, plan)]

    def on_new_view(self, message: Verified[NewView]) -> list[Fact]:
        """Enter the view if the message is what must follow from its VIEW-CHANGEs (R31, R32)."""
        body = message.body
        if not self.wants_opening(body.view):
            return []
        try:
            plan = new_view.check(self._quorum, body)
        except InvalidCertificate as error:
            self._outbox.reject("new-view-mismatch", body.replica)
            if body.view > self.view:
                return []
            return [Leave(self.view + 1, str(error))]
        return [self._install(body, message.envelope, plan)]

    def _install(self, body: NewView, opening: Envelope, plan: new_view.Plan) -> ViewInstalled:
        self.view, self.active, self.max_seq = body.view, True, plan.max_seq
        self._opening, self._progressed = opening, False
        self._timers.stop(NEW_VIEW)
        self._timers.stop(RESEND)
        self._changes = {r: m for r, m in self._changes.items() if m.body.view > self.view}
        self._persist()
        return ViewInstalled(body.view, plan, body.pre_prepares)

    def progress(self) -> None:
        """Something was executed in this view: time-outs shrink back (R36)."""
        if self.active:
            self.failures, self._progressed = 0, True

    @property
    def entered_by(self) -> Envelope | None:
        """The NEW-VIEW by which this replica entered its view, for those who missed it (R37)."""
        return self._opening if self.active else None

    def restore(self, record: ViewRecord, own: Verified[ViewChange] | None, now: Instant) -> None:
        """Take up what was found on disk, in the middle of a view change too (R40)."""
        self.view, self.active = record.view, record.active
        self.max_seq = record.max_seq
        self._own, self._opening = record.view_change, record.new_view
        if not self.active:
            if own is not None:
                self._changes[own.body.replica] = own
            self._timers.set(RESEND, now.mono)
