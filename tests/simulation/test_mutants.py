"""The simulator bites: with a rule taken out, its checkers say so within a few seeds.

Each bug is made here and lives for one run; without it the same seed is clean.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hasty import sent_before_it_is_durable
from msgspec import Struct
from msgspec.structs import replace

import client.ordered
import client.reads
import client.session
from pbft.codec import decode_body
from pbft.core import certificates, new_view
from pbft.core.certificates import check_prepared
from pbft.core.checkpoints import Checkpoints
from pbft.core.ordering import Ordering
from pbft.core.parts import Parts
from pbft.core.quorum import Quorum
from pbft.core.view_change import ViewChanges
from pbft.faults import modes
from pbft.messages import Batch, PreparedProof, PrePrepare, Proposal
from pbft.node.authentication import Authenticator
from pbft.node.executor import Executor
from pbft.node.log_store import LogStore
from pbft.simulation.runner import run
from pbft.simulation.scenario import Scenario, scenario_of, stress_of
from pbft.storage.state_store import StateStore

Patch = pytest.MonkeyPatch


def quorums_lack_a_replica(patch: Patch) -> None:
    quorum = Quorum.q.fget  # type: ignore[attr-defined]
    patch.setattr(Quorum, "q", property(lambda self: quorum(self) - 1))


class OneLess:
    """Thresholds as they are, but for the quorum."""

    def __init__(self, quorum: Quorum, q: int) -> None:
        self._quorum = quorum
        self.q = q

    def __getattr__(self, name: str) -> Any:
        return getattr(self._quorum, name)


def prepared_with_one_prepare_less(patch: Patch) -> None:
    """As if the primary's PREPARE counted beside its PRE-PREPARE."""
    advance, prepared = Ordering._advance, Ordering._prepared

    def lower(self: Ordering, slot: Any) -> Any:
        proposal, honest = slot.pre_prepare, self._quorum
        ready = proposal and slot.content and self._log.in_window(slot.seq) and not slot.prepared
        if ready and slot.prepares.count(proposal.body.digest) == honest.q - 2:
            self._quorum = OneLess(honest, honest.q - 1)  # type: ignore[assignment]
            prepared(self, slot, proposal)
            self._quorum = honest
        return advance(self, slot)

    def check(quorum: Quorum, proof: PreparedProof) -> certificates.Prepared:
        return check_prepared(OneLess(quorum, quorum.q - 1), proof)  # type: ignore[arg-type]

    patch.setattr(Ordering, "_advance", lower)
    patch.setattr(certificates, "check_prepared", check)
    patch.setattr(new_view, "check_prepared", check)


def a_request_executes_as_often_as_it_is_ordered(patch: Patch) -> None:
    patch.setattr(Executor, "_executed", lambda *_: None)


class OtherBodies(modes.Mode):
    """As primary, puts another batch beside its PRE-PREPARE for each backup."""

    name, summary, rule = "other-bodies", "", "R1"

    def twist(self, packet: Any, to: int | None) -> Any:
        if not isinstance(packet, Proposal) or to is None:
            return packet
        self._fire()
        return Proposal(packet.pre_prepare, Batch(packet.batch.time + to, packet.batch.requests))


def batches_go_unchecked(patch: Patch) -> None:
    content = Authenticator._content
    proposal = Authenticator._proposal

    def trusting(self: Authenticator, packet: Proposal, peer: int) -> Any:
        body = decode_body(packet.pre_prepare.body)
        assert isinstance(body, PrePrepare)
        claimed = replace(content(self, packet.batch), digest=body.digest)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Authenticator, "_content", lambda *_: claimed)
            return proposal(self, packet, peer)

    patch.setattr(Authenticator, "_proposal", trusting)


def gaps_stay_gaps_in_a_new_view(patch: Patch) -> None:
    compute = new_view.compute

    def forgetful(quorum: Quorum, changes: Any) -> new_view.Plan:
        plan = compute(quorum, changes)
        kept = tuple(one for one in plan.proposals if one.digest != new_view.NULL_DIGEST)
        return replace(plan, proposals=kept)

    patch.setattr(new_view, "compute", forgetful)


def view_changes_carry_no_certificates(patch: Patch) -> None:
    leave = ViewChanges.leave

    def forgetful(self: ViewChanges, view: int, stable: Any, _prepared: Any, *rest: Any) -> None:
        leave(self, view, stable, (), *rest)

    patch.setattr(ViewChanges, "leave", forgetful)


def a_weak_quorum_makes_a_checkpoint_stable(patch: Patch) -> None:
    begin = Checkpoints.__init__

    def weak(self: Checkpoints, *args: Any) -> None:
        begin(self, *args)
        self._quorum = OneLess(self._quorum, self._quorum.w)  # type: ignore[assignment]

    def check(quorum: Quorum, proof: Any, _least: int) -> Any:
        return honest(quorum, proof, quorum.w)

    honest = certificates.check_checkpoints
    patch.setattr(Checkpoints, "__init__", weak)
    patch.setattr(certificates, "check_checkpoints", check)


def fast_reads_do_not_wait_for_execution(patch: Patch) -> None:
    def may(self: Parts, _at_least: int) -> bool:
        return not (self.gate.silent or self.queue.paused)

    patch.setattr(Parts, "may_read", may)


def clients_believe_one_reply_less(patch: Patch) -> None:
    collector = client.ordered.ReplyCollector

    def credulous(envelopes: Any, digest: bytes, operations: int, enough: int) -> Any:
        return collector(envelopes, digest, operations, enough - 1)

    patch.setattr(client.ordered, "ReplyCollector", credulous)


def tokens_are_ignored(patch: Patch) -> None:
    read = client.session.ClientSession.read

    def careless(self: Any, operation: bytes, *, at_least: int = 0, deadline: Any = None) -> Any:
        return read(self, operation, at_least=min(at_least, 1), deadline=deadline)

    patch.setattr(client.session.ClientSession, "read", careless)


def reads_do_not_move_the_token(patch: Patch) -> None:
    settle = client.reads.FastReads._settle

    def forgetful(self: Any, ticket: Any, agreed: Any) -> None:
        settle(self, ticket, agreed._replace(seq=0))

    patch.setattr(client.reads.FastReads, "_settle", forgetful)


def reads_with_a_token_believe_one_replica(patch: Patch) -> None:
    decide = client.reads.meets_what_is_known

    def credulous(quorum: Any, *args: Any) -> Any:
        return decide(SimpleNamespace(w=quorum.w - 1), *args)

    patch.setattr(client.reads, "meets_what_is_known", credulous)


def votes_are_forgotten_at_a_restart(patch: Patch) -> None:
    restore = LogStore.restore

    def forgetful(self: LogStore) -> Any:
        restored = restore(self)
        for seq, record in restored.slots.items():
            restored.slots[seq] = replace(record, pre_prepare=None, prepare=None, commit=None)
        return restored

    patch.setattr(LogStore, "restore", forgetful)


def a_restarted_replica_counts_its_state_from_nothing(patch: Patch) -> None:
    begin = StateStore.__init__

    def forgetful(self: StateStore, database: Any) -> None:
        begin(self, database)
        self.application.size.rebase(0)

    patch.setattr(StateStore, "__init__", forgetful)


class Mutant(Struct, frozen=True):
    """A bug, the scenario of a seed that may show it, and what the checkers then say."""

    bug: Callable[[Patch], None]
    scenario: Callable[[int], Scenario]
    damage: tuple[str, ...]


def of_kind(kind: str) -> Callable[[int], Scenario]:
    return lambda seed: stress_of(seed, kind)


def in_small_batches(seed: int) -> Scenario:
    scenario = stress_of(seed, "storm")
    small = replace(scenario.parameters, max_batch_requests=1, pipeline_depth=8)
    return replace(scenario, parameters=small)


def with_little_room(seed: int) -> Scenario:
    scenario = stress_of(seed, "outage")
    return replace(scenario, parameters=replace(scenario.parameters, max_state_bytes=2_000))


def with_a_twin(seed: int) -> Scenario:
    return replace(stress_of(seed, "weather", twins=(seed % 4,)), keys=1, width=5)


def led_by(mode: str) -> Callable[[int], Scenario]:
    return lambda seed: scenario_of(seed, replicas=4, faulty=((0, mode),))


MUTANTS = (
    Mutant(quorums_lack_a_replica, of_kind("split"), ("agreement", "proofs")),
    Mutant(prepared_with_one_prepare_less, of_kind("split"), ("agreement", "proofs")),
    Mutant(a_request_executes_as_often_as_it_is_ordered, of_kind("storm"), ("at most once",)),
    Mutant(batches_go_unchecked, led_by(OtherBodies.name), ("agreement",)),
    Mutant(sent_before_it_is_durable, of_kind("outage"), ("promise",)),
    Mutant(gaps_stay_gaps_in_a_new_view, in_small_batches, ("liveness",)),
    Mutant(view_changes_carry_no_certificates, of_kind("storm"), ("agreement",)),
    Mutant(a_weak_quorum_makes_a_checkpoint_stable, scenario_of, ("proofs",)),
    Mutant(fast_reads_do_not_wait_for_execution, with_a_twin, ("linearizability",)),
    Mutant(clients_believe_one_reply_less, led_by("lie"), ("results",)),
    Mutant(tokens_are_ignored, of_kind("weather"), ("tokens",)),
    Mutant(reads_do_not_move_the_token, of_kind("storm"), ("tokens",)),
    Mutant(reads_with_a_token_believe_one_replica, led_by("lie"), ("results",)),
    Mutant(votes_are_forgotten_at_a_restart, of_kind("outage"), ("promise",)),
    Mutant(a_restarted_replica_counts_its_state_from_nothing, with_little_room, ("equal digests",)),
)
SEEDS = range(1, 25)
"""Most bugs show in every second of them, the shyest in every sixth."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.__name__)
def test_the_simulator_catches(mutant: Mutant, monkeypatch: Patch) -> None:
    monkeypatch.setitem(modes.MODES, OtherBodies.name, OtherBodies)
    for scenario in map(mutant.scenario, SEEDS):
        assert run(scenario).failures == (), "without the bug"
        with monkeypatch.context() as patch:
            mutant.bug(patch)
            failures = run(scenario).failures
        if any(failure.startswith(mutant.damage) for failure in failures):
            return
    pytest.fail("not caught in any seed")


def disagreements(seeds: range, twins: tuple[int, ...] = ()) -> int:
    """In how many of the seeds correct replicas executed different batches."""
    outcomes = [run(stress_of(seed, "split", twins)) for seed in seeds]
    return sum(any(f.startswith("agreement") for f in outcome.failures) for outcome in outcomes)


@pytest.mark.rule("R6")
def test_more_than_f_twins_are_caught_in_most_seeds_and_f_do_no_harm() -> None:
    assert disagreements(range(1, 6), twins=(0, 1)) >= 3
    assert [run(stress_of(seed, "split", (0,))).failures for seed in range(1, 6)] == [()] * 5


@pytest.mark.rule("R6")
def test_quorums_that_need_not_meet_are_caught_in_most_seeds(monkeypatch: Patch) -> None:
    quorums_lack_a_replica(monkeypatch)
    assert disagreements(range(1, 9)) >= 4
