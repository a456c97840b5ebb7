"""Whole state transfers: the core, its hands and several sources, some of them faulty (R23)."""

from collections.abc import Callable

import pytest
from cores import SMALL, Cores, sent

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.output import BeginTransfer, InstallNodes, Output
from pbft.messages import Checkpoint, FetchState, StateNodes, TreeNode
from pbft.node.state_sync import Installer
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

N, LATE = 7, 6
K = SMALL.checkpoint_interval
Content = dict[bytes, bytes]
Source = Callable[[int, FetchState], StateNodes | None]


def store_of(content: Content, seq: int, disk: MemoryDatabase | None = None) -> StateStore:
    store = StateStore(disk or MemoryDatabase(STATE_TABLES))
    for number in range(1, seq + 1):
        store.begin_batch(number, number)
    for key, value in content.items():
        store.application.put(key, value)
    store.flush()
    return store


def many(count: int, value: bytes = b"v") -> Content:
    return {b"key-%d" % number: value for number in range(count)}


def honest(pinned: PinnedState) -> Source:
    def answer(replica: int, fetch: FetchState) -> StateNodes:
        served = fetch.seq == pinned.summary.seq
        nodes = tuple(pinned.node(path) for path in fetch.paths) if served else ()
        return StateNodes(replica, pinned.summary, nodes)

    return answer


def lying(pinned: PinnedState) -> Source:
    """Sends what it was asked for, but for one value in every bucket."""

    def answer(replica: int, fetch: FetchState) -> StateNodes:
        nodes = honest(pinned)(replica, fetch).nodes  # type: ignore[union-attr]
        return StateNodes(replica, pinned.summary, tuple(map(_spoiled, nodes)))

    return answer


def _spoiled(node: TreeNode) -> TreeNode:
    if not node.entries:
        return node
    (key, _), *others = node.entries
    return TreeNode(node.path, (), ((key, b"wrong"), *others))


def stalling(_replica: int, _fetch: FetchState) -> None:
    """Answers nothing."""


class Fetching:
    """Replica LATE with its disk, and what the others answer."""

    def __init__(self, content: Content, seq: int) -> None:
        self.cores = Cores(N)
        self.disk = MemoryDatabase(STATE_TABLES)
        self.store = store_of(content, seq, self.disk)
        self.installer = Installer(self.store)
        self.cores.cores[LATE].queue.jump(seq)
        self.asked: dict[int, int] = {}
        self.fetched: list[bytes] = []
        self.done = False
        self.cores.step(LATE, events.Started(1))

    def certify(self, pinned: PinnedState) -> None:
        summary = pinned.summary
        for voter in range(N - 1):
            body = Checkpoint(voter, summary.seq, checkpoint_digest(summary))
            self.cores.receive(LATE, body)

    def crash(self) -> None:
        self.disk.crash()
        self.store = StateStore(self.disk)
        self.installer = Installer(self.store)
        self.cores.restart(LATE, complete=self.store.transfer_target is None)

    def run(self, sources: dict[int, Source], answers: int = 10_000, seconds: int = 60) -> None:
        """Until the state is there, so many answers have come, or the time is over."""
        waiting: list[tuple[int, FetchState]] = []
        for _ in range(10 * seconds):
            waiting += self._questions(self.cores.tick(LATE, 100))
            while waiting and not self.done:
                source, fetch = waiting.pop(0)
                self.asked[source] = self.asked.get(source, 0) + 1
                answer = sources.get(source, stalling)(source, fetch)
                if answer is not None:
                    answers -= 1
                    waiting += self._questions(self.cores.receive(LATE, answer))
                if answers <= 0:
                    return
            if self.done:
                return

    def _questions(self, output: Output) -> list[tuple[int, FetchState]]:
        questions = list(sent(output, FetchState))
        for command in output.transfer:
            questions += self._questions(self.cores.step(LATE, self._carry_out(command)))
        return questions  # type: ignore[return-value]

    def _carry_out(self, command: object) -> events.Event:
        if isinstance(command, BeginTransfer):
            self.installer.begin(command.summary)
            return events.Tick()
        if isinstance(command, InstallNodes):
            event = self.installer.install(command.nodes, command.peer)
            if isinstance(event, events.NodesInstalled):
                self.fetched += event.installed
            return event
        if not self.store.finish_transfer():
            return events.TransferFailed()
        self.done = True
        return events.StateInstalled(self.store.summary(), (), None)


@pytest.mark.rule("R23")
@pytest.mark.parametrize("faulty", ["lying", "stalling", "regressing", "all of them"])
def test_a_state_arrives_whole_although_sources_lie_stall_or_regress(faulty: str) -> None:
    old, new = store_of(many(500), K), store_of(many(20_000, b"new"), 2 * K)
    pinned = new.pin()
    sources = {replica: honest(pinned) for replica in range(N - 1)}
    if faulty in ("lying", "all of them"):
        sources[0] = lying(pinned)
    if faulty in ("stalling", "all of them"):
        sources[1] = stalling
    if faulty in ("regressing", "all of them"):
        sources[2] = honest(old.pin())
    late = Fetching(many(500), K)
    late.certify(pinned)
    late.run(sources)
    assert late.done
    assert late.store.summary() == new.summary()
    assert dict(late.store.application.range()) == many(20_000, b"new")
    bad = {"lying": [0], "stalling": [1], "regressing": [2]}.get(faulty, [0, 1, 2])
    signers = range(late.cores.contexts[0].quorum.q)
    assert all(late.asked.get(source, 0) <= 4 for source in bad), "they are changed"
    assert sum(late.asked.values()) > 15
    good = [late.asked.get(source, 0) for source in signers if source not in bad]
    assert min(good) > 0, "all others are asked, at once"


@pytest.mark.rule("R23")
@pytest.mark.parametrize("answers", [1, 2, 5, 20])
def test_a_transfer_that_was_killed_goes_on_with_what_is_on_disk(answers: int) -> None:
    """In an idle cluster: nothing but the others' heartbeats and their checkpoint."""
    new = store_of(many(3000, b"new"), 2 * K)
    pinned = new.pin()
    sources = {replica: honest(pinned) for replica in range(N - 1)}
    late = Fetching(many(500), K)
    late.certify(pinned)
    while not late.done:
        late.run(sources, answers)
        if not late.done:
            answers *= 2
            late.crash()
            late.certify(pinned)  # as a peer repeats it when it sees the heartbeat
    assert late.store.summary() == new.summary()
    buckets = [path for path in late.fetched if len(path) > 3]
    assert len(buckets) == len(set(buckets)), "no bucket is fetched twice"


@pytest.mark.rule("R23")
def test_a_target_that_moves_forward_keeps_what_is_installed() -> None:
    first = store_of(many(3000), 2 * K).pin()
    later = many(3000) | {b"key-7": b"changed"}
    second = store_of(later, 4 * K).pin()
    late = Fetching({}, K)
    late.certify(first)
    late.run({replica: honest(first) for replica in range(N - 1)}, answers=9)
    before = len(late.fetched)
    assert 100 < before < 250
    late.certify(second)
    late.run({replica: honest(second) for replica in range(N - 1)})
    assert late.done
    assert dict(late.store.application.range()) == later
    twice = {path for path in late.fetched[:before] if path in late.fetched[before:]}
    buckets = [path for path in twice if len(path) == 3]
    assert len(buckets) <= 1, "the one that has changed, if it was there already"
