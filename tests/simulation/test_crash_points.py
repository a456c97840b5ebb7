"""A replica may die at any commit, packet or execution, and nothing is contradicted or lost.

`pbft simulate crash-points` does it at all of them; here it is done at some of every kind.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hasty import sent_before_it_is_durable
from msgspec import Struct
from msgspec.structs import replace

from pbft.codec import decode_body
from pbft.core.log import Log
from pbft.core.view_change import ViewChanges
from pbft.messages import Envelope, NewView, Packet
from pbft.simulation.checkers import Witness
from pbft.simulation.crash_points import (
    REPLICAS,
    CrashRun,
    Kill,
    Points,
    count_kinds,
    pairs_of,
    run_with,
    single_kills,
)
from pbft.simulation.machine import Machine
from pbft.storage.database import writing
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import TREES, write_entries

Patch = pytest.MonkeyPatch

COMMITS = ("log commit", "state flush", "transfer begin", "transfer install", "transfer finish")
KINDS = {
    *(f"{commit}, {end}" for commit in COMMITS for end in ("lost", "kept")),
    *(f"execution, {moment}" for moment in ("before", "after")),
    *(f"send {vote}" for vote in ("Proposal", "Prepare", "Commit", "Checkpoint")),
    *(f"send {change}" for change in ("Suspect", "ViewChange", "NewView")),
    *(f"send {help}" for help in ("FetchBatches", "CommittedBatch", "FetchState", "StateNodes")),
    *(f"send {start}" for start in ("Incarnation", "IncarnationSeen")),
    *(f"answer {answer}" for answer in ("Reply", "ReadReply")),
}
PARTS = 8


@cache
def points() -> Points:
    return run_with(None).points


def of_kind(kind: str, number: int, found: Points | None = None) -> list[Kill]:
    """Some kills at points of that kind, spread over the story and the replicas."""
    found = points() if found is None else found
    kills = [kill for kill in single_kills(found) if found[kill.replica][kill.point - 1] == kind]
    number = min(number, len(kills))
    return [kills[index * len(kills) // number] for index in range(number)]


def survived(kill: Kill) -> CrashRun:
    run = run_with(kill)
    assert run.failures == (), kill
    assert run.kinds[0] == points()[kill.replica][kill.point - 1]
    return run


def test_the_story_has_every_kind_of_point() -> None:
    counts = dict(count_kinds(points()))
    assert sorted(KINDS - set(counts)) == []
    assert sum(map(sum, counts.values())) == len(single_kills(points())) > 2_000
    for replica in range(REPLICAS):
        assert counts["log commit, lost"][replica] > 50
        assert counts["state flush, kept"][replica] > 5


def test_the_storys_view_change_has_a_prepared_request_to_save(monkeypatch: Patch) -> None:
    saved: list[int] = []

    def on_sent(self: Witness, machine: Machine, packet: Packet) -> None:
        body = decode_body(packet.body) if isinstance(packet, Envelope) else None
        if isinstance(body, NewView):
            saved.append(len(body.pre_prepares))
        sent(self, machine, packet)

    sent = Witness.on_sent
    monkeypatch.setattr(Witness, "on_sent", on_sent)
    assert run_with(None).failures == ()
    assert max(saved) > 0


def test_one_kill_is_the_same_run_every_time() -> None:
    kill = Kill(2, 117, again=12, others=(3,))
    run = run_with(kill)
    assert run == run_with(kill)
    assert len(run.kinds) == 2
    assert run.trace_hash not in (run_with(kill, seed=1).trace_hash, run_with(None).trace_hash)


@pytest.mark.rule("R39")
@pytest.mark.rule("R40")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_points_of_every_kind_is_survived_alone_and_in_pairs(part: int) -> None:
    for kind in sorted(KINDS)[part::PARTS]:
        runs = [survived(kill) for kill in of_kind(kind, 2)]
        pairs = pairs_of(runs[:1], 1)
        again, together = [k for k in pairs if k.again], [k for k in pairs if k.others]
        survived(again[len(again) // 2])
        survived(together[len(kind) % len(together)])


def test_pairs_are_a_second_kill_in_the_recovery_or_of_others_at_the_same_moment() -> None:
    run = replace(run_with(Kill(1, 40)), recovery=3)
    assert pairs_of([run], 1) == [
        *(Kill(1, 40, again=number) for number in (1, 2, 3)),
        *(Kill(1, 40, others=others) for others in ((2,), (3,), (0,), (2, 3, 0))),
    ]
    assert pairs_of([run], 2) == [
        *(Kill(1, 40, again=number) for number in (1, 3)),
        *(Kill(1, 40, others=others) for others in ((2,), (0,))),
    ]


def test_a_point_that_is_never_reached_is_a_failure() -> None:
    assert run_with(Kill(0, 100_000)).failures == ("story: point 100000 was not reached",)


# --- the checkers bite -----------------------------------------------------------------------


def the_flush_is_not_one_transaction(patch: Patch) -> None:
    """The entries first, what they are the state after in another one."""
    flush = StateStore.flush

    def in_two(self: StateStore) -> Any:
        with writing(self._database) as transaction:
            for tree, state in zip(TREES, self._maps(), strict=True):
                write_entries(transaction, tree, state.changes)
        return flush(self)

    patch.setattr(StateStore, "flush", in_two)


def a_transfer_is_not_marked_on_disk(patch: Patch) -> None:
    def unmarked(self: StateStore, target: Any) -> None:
        self.transfer_target = target
        self.seq, self.time = self._flushed.seq, self._flushed.time
        self._let_go()

    patch.setattr(StateStore, "begin_transfer", unmarked)


def a_commit_is_not_written_down(patch: Patch) -> None:
    save = Log.save

    def forgetful(self: Log, slot: Any) -> None:
        commit, proof = slot.own_commit, slot.proof
        slot.own_commit = slot.proof = None
        save(self, slot)
        slot.own_commit, slot.proof = commit, proof

    patch.setattr(Log, "save", forgetful)


def leaving_a_view_is_not_written_down(patch: Patch) -> None:
    persist = ViewChanges._persist
    patch.setattr(ViewChanges, "_persist", lambda self: persist(self) if self.active else None)


class Mutant(Struct, frozen=True):
    """A bug, the kind of points at which it shows, and what the checkers then say."""

    bug: Callable[[Patch], None]
    kind: str
    damage: tuple[str, ...]


MUTANTS = (
    Mutant(sent_before_it_is_durable, "log commit, lost", ("promise",)),
    Mutant(the_flush_is_not_one_transaction, "state flush, kept", ("disk",)),
    Mutant(a_transfer_is_not_marked_on_disk, "transfer install, kept", ("disk",)),
    Mutant(a_commit_is_not_written_down, "send Suspect", ("promise",)),
    Mutant(leaving_a_view_is_not_written_down, "send ViewChange", ("promise",)),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.__name__)
def test_the_enumeration_catches(mutant: Mutant, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        mutant.bug(patch)
        quiet = run_with(None)
        assert quiet.failures == ()
        for kill in of_kind(mutant.kind, 24, quiet.points):
            failures = run_with(kill).failures
            if any(failure.startswith(mutant.damage) for failure in failures):
                return
    pytest.fail("not caught at any point")
