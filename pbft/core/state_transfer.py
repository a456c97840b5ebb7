"""Towards a certified checkpoint, node by node, from several sources (R23).

Which nodes are wanted comes from comparing trees, which the shell does; here is decided what to
fetch from whom, and when to try somebody else. Every answer is checked by the shell against the
target's digest before anything of it is kept.
"""

from msgspec import Struct

from pbft.codec import checkpoint_digest
from pbft.core.certificates import Certified
from pbft.core.context import Context, Instant
from pbft.core.output import BeginTransfer, FinishTransfer, InstallNodes, Outbox
from pbft.core.timers import Timers
from pbft.messages import FetchState, StateNodes, StateSummary, Verified

TRANSFER = "state-transfer"
ROOTS = (b"\x00", b"\x01")
PATHS_PER_FETCH = 16
ANSWER_TIMEOUT_US, MAX_ANSWER_TIMEOUT_US = 500_000, 4_000_000


class InFlight(Struct, frozen=True):
    """What one source was asked for, and until when it may take."""

    paths: tuple[bytes, ...]
    deadline: int


class StateTransfer:
    """At most one transfer at a time."""

    def __init__(self, context: Context, timers: Timers, outbox: Outbox) -> None:
        self._context = context
        self._timers = timers
        self._outbox = outbox
        self.target: Certified | None = None
        self._summary: StateSummary | None = None
        self._wanted: dict[bytes, None] = {}
        self._asked: dict[int, InFlight] = {}
        self._excluded: dict[int, None] = {}
        self.installed = 0  # nodes of this transfer so far
        self._patience = ANSWER_TIMEOUT_US  # doubles when nobody has answered in time

    @property
    def begun(self) -> bool:
        """Whether the local state has been given up for the target."""
        return self._summary is not None

    def start(self, target: Certified, now: Instant) -> None:
        """Fetch `target`, or move on to it from an older one."""
        if self.target is not None and self.target.seq >= target.seq:
            return
        self.target, self._summary = target, None
        self._wanted = dict.fromkeys(ROOTS)
        self._asked, self._excluded, self.installed = {}, {}, 0
        self._patience = ANSWER_TIMEOUT_US
        self._outbox.note("state-transfer-started", target=target.seq)
        self._fetch(now)

    def _sources(self) -> list[int]:
        assert self.target is not None
        signers = [r for r in self.target.sources if r != self._context.id]
        return [r for r in signers if r not in self._excluded and r not in self._asked]

    def _fetch(self, now: Instant) -> None:
        """Give every idle source something to do (the first answer must bring the summary)."""
        target = self.target
        assert target is not None
        for source in self._sources():
            paths = tuple(self._wanted)[:PATHS_PER_FETCH]
            if not paths or (self._asked and self._summary is None):
                break
            for path in paths:
                del self._wanted[path]
            self._asked[source] = InFlight(paths, now.mono + self._patience)
            body = FetchState(self._context.id, target.seq, paths)
            self._outbox.send(source, self._context.sign(body).envelope)
        deadlines = (asked.deadline for asked in self._asked.values())
        self._timers.set(TRANSFER, min(deadlines, default=now.mono + self._patience))

    def expects(self, message: StateNodes) -> bool:
        """Whether this answer was asked for: others are not even verified."""
        return self.target is not None and message.replica in self._asked

    def on_nodes(self, message: Verified[StateNodes], now: Instant) -> None:
        """Pass an answer on to be checked and installed."""
        nodes = message.body
        if not self.expects(nodes):
            return
        assert self.target is not None
        if nodes.summary.seq != self.target.seq or not nodes.nodes:
            self._give_up(nodes.replica, "has no such checkpoint any more", now)
        elif checkpoint_digest(nodes.summary) != self.target.digest:
            self._give_up(nodes.replica, "a summary that is not the certified one", now)
        else:
            if self._summary is None:
                self._summary = nodes.summary
                self._outbox.transfer.append(BeginTransfer(nodes.summary))
            self._outbox.transfer.append(InstallNodes(nodes, nodes.replica))

    def on_installed(
        self, peer: int, installed: tuple[bytes, ...], wanted: tuple[bytes, ...], now: Instant
    ) -> None:
        """Nodes matched: go on with what they showed to be missing."""
        asked = self._asked.pop(peer, None)
        if self.target is None or asked is None:
            return  # a copy of an answer that was dealt with
        for path in asked.paths:
            if path not in installed:
                self._wanted[path] = None
        if not set(asked.paths) & set(installed):
            self._excluded[peer] = None  # true nodes, but none that it was asked for
            self._outbox.reject("state-transfer: nothing that was asked for", peer)
        else:
            self._patience = ANSWER_TIMEOUT_US  # somebody answers: the network is not the trouble
        self._wanted.update(dict.fromkeys(wanted))
        self.installed += len(installed)
        if self._wanted or self._asked:
            self._fetch(now)
        else:
            self._outbox.transfer.append(FinishTransfer())

    def on_failed(self, now: Instant) -> None:
        """The roots differ although nothing was left to fetch: begin again from them."""
        self._wanted = dict.fromkeys(ROOTS)
        self._fetch(now)

    def on_refused(self, peer: int, reason: str, now: Instant) -> None:
        """Nodes did not match: this source is not asked again for this target."""
        if self.target is not None:
            self._give_up(peer, reason, now)

    def on_timer(self, now: Instant) -> None:
        """Ask others for what was not answered in time."""
        for peer, asked in list(self._asked.items()):
            if asked.deadline <= now.mono:
                self._give_up(peer, "no answer in time", now)
        if not self._asked:
            self._excluded.clear()
            self._patience = min(2 * self._patience, MAX_ANSWER_TIMEOUT_US)
            self._fetch(now)

    def _give_up(self, peer: int, reason: str, now: Instant) -> None:
        self._outbox.reject(f"state-transfer: {reason}", peer)
        self._excluded[peer] = None
        asked = self._asked.pop(peer, None)
        if asked:
            self._wanted.update(dict.fromkeys(asked.paths))
        self._fetch(now)

    @property
    def exhausted(self) -> bool:
        """Whether no source is left that might answer: a newer target is welcome."""
        return self.target is not None and not self._asked and not self._sources()

    def finished(self) -> None:
        """The target's state is in place."""
        self.target = self._summary = None
        self._wanted, self._asked, self._excluded = {}, {}, {}
        self._patience = ANSWER_TIMEOUT_US
        self._timers.stop(TRANSFER)
