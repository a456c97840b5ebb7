"""Contradictions: kept with both signed messages, about the guilty only, in bounded room."""

import msgspec
import pytest
from cores import Cores, reasons, summary_of, votes_in

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.evidence import MAX_EVIDENCE_PER_REPLICA
from pbft.core.output import Output
from pbft.core.records import EvidenceRecord
from pbft.messages import Body, Checkpoint, Commit, Prepare, StateSummary, ViewChange

BACKUP = 1


@pytest.fixture
def cores() -> Cores:
    return Cores()


def kept(cores: Cores, i: int) -> list[EvidenceRecord]:
    """The evidence on the disk of core `i`."""
    records = [v for (table, _), v in sorted(cores.disks[i].items()) if table == "evidence"]
    return [msgspec.msgpack.decode(value, type=EvidenceRecord) for value in records]


@pytest.mark.rule("R2")
@pytest.mark.rule("R46")
def test_both_pre_prepares_of_an_equivocating_primary_are_kept(cores: Cores) -> None:
    one = cores.proposal(cores.content(cores.request(bundle=1)), 1)
    other = cores.proposal(cores.content(cores.request(bundle=2)), 1)
    cores.step(BACKUP, one)
    cores.step(BACKUP, other)
    expected = EvidenceRecord(
        "equivocation", 0, one.pre_prepare.envelope, other.pre_prepare.envelope
    )
    assert kept(cores, BACKUP) == [expected]


@pytest.mark.rule("R46")
@pytest.mark.parametrize("kind", [Prepare, Commit])
def test_both_votes_of_a_double_voter_are_kept_and_the_first_stands(
    cores: Cores, kind: type[Prepare] | type[Commit]
) -> None:
    first, second = kind(2, 0, 1, b"a" * 32), kind(2, 0, 1, b"b" * 32)
    cores.receive(BACKUP, first)
    output = cores.receive(BACKUP, second)
    assert reasons(output) == ["contradicting-vote"]
    [evidence] = output.evidence
    assert evidence.kind == f"double-{kind.__name__.lower()}"
    assert (evidence.culprit, evidence.first, evidence.second) == (
        2,
        cores.envelope(2, first),
        cores.envelope(2, second),
    )
    slot = cores.cores[BACKUP].log.slot(1)
    votes = slot.prepares if kind is Prepare else slot.commits
    assert votes.voted(2) == b"a" * 32


@pytest.mark.rule("R46")
def test_both_checkpoints_of_a_liar_are_kept(cores: Cores) -> None:
    cores.receive(BACKUP, Checkpoint(2, 4, b"a" * 32))
    [evidence] = cores.receive(BACKUP, Checkpoint(2, 4, b"b" * 32)).evidence
    assert (evidence.kind, evidence.culprit) == ("double-checkpoint", 2)


@pytest.mark.rule("R46")
def test_both_view_changes_of_a_double_dealer_are_kept(cores: Cores) -> None:
    honest = ViewChange(2, 1, 0, bytes(32), (), ())
    content = cores.content(cores.request())
    other = ViewChange(2, 1, 0, bytes(32), (), (cores.prepared_proof(content, 1),))
    cores.receive(BACKUP, honest)
    [evidence] = cores.receive(BACKUP, other).evidence
    assert (evidence.kind, evidence.culprit) == ("double-view-change", 2)


@pytest.mark.rule("R46")
@pytest.mark.parametrize(
    "body",
    [
        Prepare(2, 0, 1, b"a" * 32),
        Commit(2, 0, 1, b"a" * 32),
        Checkpoint(2, 4, b"a" * 32),
        ViewChange(2, 1, 0, bytes(32), (), ()),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_message_that_is_repeated_accuses_nobody(cores: Cores, body: Body) -> None:
    cores.receive(BACKUP, body)
    assert not cores.receive(BACKUP, body).evidence


@pytest.mark.rule("R46")
def test_votes_of_different_views_and_numbers_accuse_nobody(cores: Cores) -> None:
    outputs = [
        cores.receive(BACKUP, Prepare(2, view, seq, bytes([view, seq]) * 16))
        for view in (0, 1, 2)
        for seq in (1, 2)
    ]
    assert not any(output.evidence for output in outputs)


@pytest.mark.rule("R46")
def test_a_second_checkpoint_for_one_number_is_never_signed(cores: Cores) -> None:
    gate = cores.cores[BACKUP].gate
    gate.checkpoint(4, b"a" * 32)
    gate.checkpoint(4, b"b" * 32)
    output = cores.tick(BACKUP)
    assert votes_in(output, Checkpoint) == [Checkpoint(BACKUP, 4, b"a" * 32)]


@pytest.mark.rule("R46")
def test_a_second_checkpoint_is_not_signed_after_a_restart_either(cores: Cores) -> None:
    executed_up_to(cores, BACKUP, 4)
    wrong = b"w" * 32
    assert gate_checkpoint(cores, BACKUP, 4) == checkpoint_digest(summary_of(4))
    cores.restart(BACKUP)
    cores.cores[BACKUP].gate.checkpoint(4, wrong)
    assert not votes_in(cores.tick(BACKUP), Checkpoint)
    assert gate_checkpoint(cores, BACKUP, 4) == checkpoint_digest(summary_of(4))


@pytest.mark.rule("R46")
def test_a_checkpoint_below_the_stable_one_is_not_signed_a_second_time(cores: Cores) -> None:
    """A replica with a wrong state votes for 4, learns of 8, is repaired, and passes 4 again."""
    core = cores.cores[BACKUP]
    wrong = StateSummary(4, 4, b"wrong" + bytes(27), bytes(32))
    first = vote_on(cores, wrong)
    stable = tuple(cores.sign(i, Checkpoint(i, 8, b"s" * 32)) for i in (0, 2, 3))
    cores.step(BACKUP, events.CheckpointProofReceived(stable))
    core.queue.jump(3)
    again = vote_on(cores, summary_of(4))
    assert len(votes_in(first, Checkpoint)) == 1
    assert votes_in(again, Checkpoint) == []


def vote_on(cores: Cores, summary: StateSummary) -> Output:
    core = cores.cores[BACKUP]
    core.queue.jump(4)
    return cores.step(BACKUP, events.Executed(4, summary, (), None))


@pytest.mark.rule("R46")
def test_evidence_stays_within_its_room_and_outlives_a_restart(cores: Cores) -> None:
    for i in range(MAX_EVIDENCE_PER_REPLICA + 10):
        cores.receive(BACKUP, Prepare(2, 0, 1, i.to_bytes(32, "big")))
    assert len(kept(cores, BACKUP)) <= MAX_EVIDENCE_PER_REPLICA
    before = kept(cores, BACKUP)
    cores.restart(BACKUP)
    cores.receive(BACKUP, Prepare(3, 0, 2, b"a" * 32))
    cores.receive(BACKUP, Prepare(3, 0, 2, b"b" * 32))
    assert kept(cores, BACKUP)[: len(before)] == before


@pytest.mark.rule("R46")
def test_one_culprit_does_not_use_up_the_room_for_evidence_against_others(cores: Cores) -> None:
    for i in range(MAX_EVIDENCE_PER_REPLICA + 10):
        cores.receive(BACKUP, Prepare(2, 0, 1, i.to_bytes(32, "big")))
    cores.step(BACKUP, cores.proposal(cores.content(cores.request(bundle=1)), 1))
    cores.step(BACKUP, cores.proposal(cores.content(cores.request(bundle=2)), 1))
    assert 0 in {record.culprit for record in kept(cores, BACKUP)}


@pytest.mark.rule("R46")
def test_the_same_contradiction_is_kept_once(cores: Cores) -> None:
    cores.receive(BACKUP, Prepare(2, 0, 1, b"a" * 32))
    for _ in range(3):
        cores.receive(BACKUP, Prepare(2, 0, 1, b"b" * 32))
    assert len(kept(cores, BACKUP)) == 1


def executed_up_to(cores: Cores, i: int, last: int) -> None:
    """Let core `i` execute batches 1..`last` that others have committed."""
    for seq in range(1, last + 1):
        content = cores.content(cores.request(bundle=seq))
        votes = cores.commit_votes(content, seq)
        cores.step(i, events.CommittedBatchReceived(votes, content, 2))
        cores.states[i] = seq
        cores.step(i, cores.executed(seq, content, seq % 4 == 0))


def gate_checkpoint(cores: Cores, i: int, seq: int) -> bytes:
    """What core `i` has vouched for at `seq`."""
    return cores.cores[i].gate.checkpoints[seq].body.digest
