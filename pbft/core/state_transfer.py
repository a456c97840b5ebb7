"""Towards a certified checkpoint, node by node, from several sources (R23).

Which nodes are wanted comes from comparing trees, which the shell does; here is decided what to
fetch from whom, and when to try somebody else. Every answer is checked by the shell against the
target's digest before anything of it is kept. The target may move forward on the way: what is
installed stays, and only what differs from the new one is fetched.
"""

from msgspec import Struct

from pbft.codec import checkpoint_digest
from pbft.core.certificates import Certified
from pbft.core.context import Context, Instant
from pbft.core.output import BeginTransfer, FinishTransfer, InstallNodes, Outbox
from pbft.core.timers import Timers
from pbft.messages import MAX_TREE_PATHS, FetchState, StateNodes, StateSummary, Verified

TRANSFER = "state-transfer"
ROOTS = (b"\x00", b"\x01")
PATHS_PER_FETCH = MAX_TREE_PATHS
ANSWER_TIMEOUT_US, MAX_ANSWER_TIMEOUT_US = 2_000_000, 8_000_000
SLOW_US = 500_000  # after which what one source was asked for is asked of an idle one as well
MAX_PAUSE_US = 15_000_000  # for which a source is left alone that did not answer in time
FOR_GOOD = 1 << 62  # as long as somebody else answers
MAX_LATE = 4  # answers to earlier questions that one source may still owe


class InFlight(Struct):
    """What one source was asked for and has not sent yet, and until when it may take."""

    paths: dict[bytes, None]
    since: int
    deadline: int
    doubled: bool = False


class Progress(Struct):
    """What a transfer has brought so far, all its targets together."""

    nodes: int = 0
    buckets: int = 0
    size: int = 0  # bytes of keys and values
    moves: int = 0  # how often the target has moved forward


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
        self._excluded: dict[int, int] = {}  # who is not asked, and until when
        self._silences: dict[int, int] = {}  # how often each source has not answered in time
        self._late: dict[int, int] = {}  # answers that each source may still owe
        self.progress = Progress()
        self._patience = ANSWER_TIMEOUT_US  # doubles when nobody has answered in time

    @property
    def begun(self) -> bool:
        """Whether the local state has been given up for the target."""
        return self._summary is not None

    @property
    def wanted(self) -> int:
        """How many nodes are known to be missing."""
        return len(self._wanted) + sum(len(asked.paths) for asked in self._asked.values())

    @property
    def sources(self) -> tuple[int, ...]:
        """Who has been asked and has not answered yet."""
        return tuple(sorted(self._asked))

    def start(self, target: Certified, now: Instant) -> None:
        """Fetch `target`, or move on to it from an older one."""
        before = self.target
        if before is not None and before.seq >= target.seq:
            return
        if before is None:
            self.progress = Progress()
            self._outbox.note("state-transfer-started", target=target.seq)
        else:
            self.progress.moves += 1
            self._outbox.note("state-transfer-moved", target=target.seq, **self._so_far())
        self.target, self._summary = target, None
        self._wanted = dict.fromkeys(ROOTS)
        for peer in list(self._asked):
            self._withdraw(peer)
        self._excluded = {}
        self._patience = ANSWER_TIMEOUT_US
        self._fetch(now)

    def _so_far(self) -> dict[str, int]:
        return {"buckets": self.progress.buckets, "bytes": self.progress.size}

    # -- whom to ask for what

    def _idle(self, now: Instant) -> list[int]:
        assert self.target is not None
        signers = [r for r in self.target.sources if r != self._context.id and r not in self._asked]
        idle = [r for r in signers if self._excluded.get(r, 0) <= now.mono]
        return sorted(idle, key=lambda source: self._silences.get(source, 0))

    def _fetch(self, now: Instant) -> None:
        """Give every idle source something to do (the first answer must bring the summary)."""
        target = self.target
        assert target is not None
        idle = self._idle(now)
        while idle:
            paths = self._take(len(idle)) or self._take_over(now)
            if not paths:
                break
            source = idle.pop(0)
            self._asked[source] = InFlight(paths, now.mono, now.mono + self._patience)
            body = FetchState(self._context.id, target.seq, tuple(paths))
            self._outbox.send(source, self._context.sign(body).envelope)
        self._set_timer(bool(idle), now)

    def _take(self, idle: int) -> dict[bytes, None]:
        """A fair share of what nobody was asked for yet; deep before wide, which keeps it short."""
        share = -(-len(self._wanted) // idle) if self.begun else len(self._wanted)
        share = min(PATHS_PER_FETCH, share)
        return dict(reversed([self._wanted.popitem() for _ in range(share)]))

    def _take_over(self, now: Instant) -> dict[bytes, None]:
        """What another source is slow with, so that the slowest does not set the pace."""
        for asked in self._asked.values():
            if not asked.doubled and asked.since + SLOW_US <= now.mono:
                asked.doubled = True
                return dict(asked.paths)
        return {}

    def _set_timer(self, idle: bool, now: Instant) -> None:
        deadlines = [asked.deadline for asked in self._asked.values()]
        if idle:
            deadlines += [a.since + SLOW_US for a in self._asked.values() if not a.doubled]
        deadlines += [until for until in self._excluded.values() if now.mono < until < FOR_GOOD]
        self._timers.set(TRANSFER, min(deadlines, default=now.mono + self._patience))

    # -- answers

    def expects(self, message: StateNodes) -> bool:
        """Whether this answer was asked for: others are not even verified."""
        return self.target is not None and message.replica in self._asked

    def on_nodes(self, message: Verified[StateNodes], now: Instant) -> None:
        """Pass an answer on to be checked and installed."""
        nodes, target = message.body, self.target
        if target is None or not self.expects(nodes):
            return
        if not nodes.nodes:
            self._give_up(nodes.replica, "has no such checkpoint any more", now)
        elif nodes.summary.seq != target.seq:
            self._stray(nodes.replica, now)
        elif checkpoint_digest(nodes.summary) != target.digest:
            self._give_up(nodes.replica, "a summary that is not the certified one", now)
        else:
            if self._summary is None:
                self._summary = nodes.summary
                self._outbox.transfer.append(BeginTransfer(nodes.summary))
            self._outbox.transfer.append(InstallNodes(nodes, nodes.replica))

    def _stray(self, peer: int, now: Instant) -> None:
        """Not what was asked for last: the answer to an earlier question, or a waste of time."""
        if self._late.get(peer, 0) > 0:
            self._late[peer] -= 1
        else:
            self._give_up(peer, "nothing that was asked for", now)

    def _withdraw(self, peer: int) -> None:
        """Wait for this source's answer no longer; it may still come."""
        del self._asked[peer]
        self._late[peer] = min(MAX_LATE, self._late.get(peer, 0) + 1)

    def on_installed(
        self,
        peer: int,
        installed: tuple[bytes, ...],
        wanted: tuple[bytes, ...],
        now: Instant,
        *,
        buckets: int = 0,
        size: int = 0,
    ) -> None:
        """Nodes matched: go on with what they showed to be missing."""
        if not self.begun:
            return  # of a target that was left meanwhile
        missing = self._missing()
        if missing.isdisjoint(installed):
            if peer in self._asked:
                self._stray(peer, now)
            return
        self._patience = ANSWER_TIMEOUT_US  # somebody answers: the network is not the trouble
        asked = self._asked.get(peer)
        if asked and not asked.paths.keys().isdisjoint(installed):
            self._wanted.update(asked.paths)
            del self._asked[peer]
        self._settle(installed)
        self._wanted.update(dict.fromkeys(wanted))
        self.progress.nodes += len(installed)
        self.progress.buckets += buckets
        self.progress.size += size
        if self._wanted or self._asked:
            self._fetch(now)
        else:
            self._outbox.transfer.append(FinishTransfer())

    def _missing(self) -> set[bytes]:
        return set(self._wanted).union(*(asked.paths for asked in self._asked.values()))

    def _settle(self, installed: tuple[bytes, ...]) -> None:
        """Nobody has to send these any more."""
        for path in installed:
            self._wanted.pop(path, None)
        for peer, asked in list(self._asked.items()):
            for path in installed:
                asked.paths.pop(path, None)
            if not asked.paths:
                self._withdraw(peer)

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
                self._wanted.update(asked.paths)
                self._withdraw(peer)
                silences = self._silences[peer] = self._silences.get(peer, 0) + 1
                pause = min(self._patience << min(silences, 8), MAX_PAUSE_US)
                self._give_up(peer, "no answer in time", now, now.mono + pause)
        if not self._asked:
            self._excluded.clear()
            self._patience = min(2 * self._patience, MAX_ANSWER_TIMEOUT_US)
        self._fetch(now)

    def _give_up(self, peer: int, reason: str, now: Instant, until: int = FOR_GOOD) -> None:
        self._outbox.reject(f"state-transfer: {reason}", peer)
        self._excluded[peer] = until
        if asked := self._asked.pop(peer, None):
            self._wanted.update(asked.paths)
        self._fetch(now)

    def exhausted(self, now: Instant) -> bool:
        """Whether no source is left that might answer: a newer target is welcome."""
        return self.target is not None and not self._asked and not self._idle(now)

    def finished(self) -> None:
        """The target's state is in place."""
        self.target = self._summary = None
        self._wanted, self._asked, self._excluded = {}, {}, {}
        self._silences, self._late = {}, {}
        self._patience = ANSWER_TIMEOUT_US
        self._timers.stop(TRANSFER)
