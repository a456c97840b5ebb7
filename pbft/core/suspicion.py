"""When does a replica lose faith in the primary? (O4.4, R19, R26, R36)

A request waits and nothing executes for a whole time-out, or too many batches pass it by; the
primary is not heard; its clock lags. Then the replica says SUSPECT, again and again while it lasts,
and only w such voices make anybody leave the view. One that left on its own (as in O4.4) could
vote in no lower view any more (R27) while the others have no reason to follow: a single slow
replica would silence itself.
"""

from msgspec import Struct

from pbft.core.context import Context, Instant, microseconds
from pbft.core.output import Outbox
from pbft.core.timers import Timers
from pbft.messages import Suspect, Verified

REQUEST, SILENCE = "request", "primary-silent"
DISCONNECTED_GRACE_US = 150_000


class PrimarySuspected(Struct, frozen=True):
    """It is time to leave `view`."""

    view: int
    reason: str


class Suspicion:
    """Timers on the primary of the current view, and SUSPECT votes."""

    def __init__(self, context: Context, timers: Timers, outbox: Outbox) -> None:
        parameters = context.parameters
        self._context = context
        self._timers = timers
        self._outbox = outbox
        self._request_timeout = microseconds(parameters.request_timeout_ms)
        self._silence_timeout = microseconds(parameters.heartbeat_timeout_ms)
        self._cap = microseconds(parameters.view_timeout_cap_ms)
        self._view = 0
        self._active = True
        self._backoff = 0
        self._voices: dict[int, tuple[int, int]] = {}  # of each replica: view, and when
        self._gone: dict[int, int] = {}  # the highest view that each replica has left for
        self._quiet_until = (0, 0)  # in which view, until when

    @property
    def _leading(self) -> bool:
        return self._context.quorum.primary(self._view) == self._context.id

    def _wait(self) -> int:
        return min(self._request_timeout << min(self._backoff, 20), self._cap)

    # -- a request waits

    def request_waits(self, now: Instant) -> None:
        """A valid request is on the list: the timer runs from now unless it runs (O4.4)."""
        if self._active and not self._leading:
            self._timers.start(REQUEST, now.mono + self._wait())

    def executed(self, waiting: bool, now: Instant) -> None:
        """A batch was executed: that is progress, and the timer starts over or stops."""
        self._backoff = 0
        self._timers.stop(REQUEST)
        if waiting:
            self.request_waits(now)

    # -- the primary is not heard

    def heard(self, replica: int, now: Instant) -> None:
        """Something verified came from `replica` itself."""
        if replica == self._context.quorum.primary(self._view):
            self._watch(now.mono + self._silence_timeout)

    def disconnected(self, replica: int, now: Instant) -> None:
        """A closed channel is a hint: look again soon (R26)."""
        watched = self._active and replica == self._context.quorum.primary(self._view)
        if watched and not self._leading:
            self._timers.hasten(SILENCE, now.mono + DISCONNECTED_GRACE_US)

    def _watch(self, deadline: int) -> None:
        if self._active and not self._leading:
            self._timers.set(SILENCE, deadline)

    def on_timer(self, name: str, now: Instant) -> list[PrimarySuspected]:
        """REQUEST or SILENCE has ended."""
        if not self._active:
            return []
        self._timers.set(name, now.mono + self._silence_timeout)  # a voice is to stay fresh
        return self.suspect(now)

    def suspect(self, now: Instant) -> list[PrimarySuspected]:
        """Say SUSPECT aloud (again), but not all the time."""
        if (self._view, now.mono) < self._quiet_until:
            return []
        self._quiet_until = (self._view, now.mono + self._silence_timeout // 2)
        voice = self._context.sign(Suspect(self._context.id, self._view))
        self._outbox.send(None, voice.envelope)
        return self.on_suspect(voice, now)

    def on_suspect(self, message: Verified[Suspect], now: Instant) -> list[PrimarySuspected]:
        """Count SUSPECTs of this view, one per replica; a voice that is not renewed expires."""
        body = message.body
        known = self._voices.get(body.replica, (0, 0))
        self._voices[body.replica] = max(known, (body.view, now.mono))
        return self._judge(now)

    def gone(self, replica: int, view: int, now: Instant) -> list[PrimarySuspected]:
        """`replica` has left for `view`: it never votes below again (R27), so its voice stays.

        Otherwise those whose voices made it leave, and who did not hear it in time, could be too
        few to go on and too few to follow.
        """
        self._gone[replica] = max(view, self._gone.get(replica, 0))
        return self._judge(now)

    def _judge(self, now: Instant) -> list[PrimarySuspected]:
        since = (self._view, now.mono - 2 * self._silence_timeout)
        until = (self._view, now.mono)
        voices = {replica for replica, voice in self._voices.items() if since <= voice <= until}
        voices.update(replica for replica, view in self._gone.items() if view > self._view)
        if self._active and len(voices) >= self._context.quorum.w:
            return [PrimarySuspected(self._view, "a weak quorum has lost faith in the primary")]
        return []

    # -- views

    def left(self, view: int) -> None:
        """On the way to `view`: its timer is another one's business."""
        self._view, self._active = view, False
        self._timers.stop(REQUEST)
        self._timers.stop(SILENCE)

    def entered(self, view: int, failures: int, waiting: bool, now: Instant) -> None:
        """A new primary has the word; the more views failed before, the longer it gets (R36)."""
        self._view, self._active, self._backoff = view, True, failures
        self._timers.stop(REQUEST)
        self._watch(now.mono + max(self._silence_timeout, self._wait()))
        if waiting:
            self.request_waits(now)
