"""The normal case, seen from one replica: which assignments it accepts, and what it counts."""

import pytest
from cores import SMALL, Cores, reasons, sent, votes_in

from pbft.codec import decode_body
from pbft.core import events
from pbft.core.batches import BatchContent
from pbft.core.output import Output
from pbft.messages import (
    Checkpoint,
    Commit,
    Envelope,
    Packet,
    Prepare,
    PrePrepare,
    Proposal,
    Suspect,
    Verified,
)

BACKUP = 1


@pytest.fixture
def cores() -> Cores:
    return Cores()


@pytest.fixture
def content(cores: Cores) -> BatchContent:
    return cores.content(cores.request())


def own_votes(cores: Cores, i: int, output: Output) -> Output:
    """Count what core `i` has just voted, now that it is durable."""
    for message in output.own:
        output = cores.step(i, events.OwnDurable(message))
    return output


def accept(cores: Cores, i: int, content: BatchContent, seq: int = 1) -> None:
    own_votes(cores, i, cores.step(i, cores.proposal(content, seq)))


def executed(cores: Cores, i: int) -> list[int]:
    return [execute.seq for output in cores.outputs[i] for execute in output.execute]


def commits_of(cores: Cores, i: int) -> list[Commit]:
    return [vote for output in cores.outputs[i] for vote in votes_in(output, Commit)]


# -- R1: what a backup accepts


@pytest.mark.rule("R1")
def test_a_backup_agrees_to_the_primarys_assignment(cores: Cores, content: BatchContent) -> None:
    output = cores.step(BACKUP, cores.proposal(content, 1))
    agreed = Prepare(BACKUP, 0, 1, content.digest)
    assert votes_in(output, Prepare) == [agreed]
    assert sent(output, Prepare) == [(None, agreed)]


@pytest.mark.rule("R1")
@pytest.mark.parametrize("view", [1, 2, 4, 2**63 - 1])
def test_a_pre_prepare_of_another_view_is_refused(
    cores: Cores, content: BatchContent, view: int
) -> None:
    output = cores.step(BACKUP, cores.proposal(content, 1, view))
    assert reasons(output) == ["pre-prepare-of-another-view"]
    assert not output.own
    assert not output.persist


@pytest.mark.rule("R1")
@pytest.mark.parametrize("impostor", [2, 3])
def test_a_pre_prepare_of_a_replica_that_is_not_the_primary_is_refused(
    cores: Cores, content: BatchContent, impostor: int
) -> None:
    body = PrePrepare(impostor, 0, 1, content.digest)
    event = events.ProposalReceived(cores.sign(impostor, body), content)
    output = cores.step(BACKUP, event)
    assert reasons(output) == ["pre-prepare-of-another-view"]
    assert not output.own


@pytest.mark.rule("R1")
@pytest.mark.parametrize("seq", [0, SMALL.window + 1, 2**63 - 1])
def test_a_pre_prepare_outside_the_watermarks_gets_no_vote(
    cores: Cores, content: BatchContent, seq: int
) -> None:
    output = cores.step(BACKUP, cores.proposal(content, seq))
    assert reasons(output) == ["pre-prepare-out-of-window"]
    assert not output.own


@pytest.mark.rule("R1")
def test_the_last_number_of_the_window_gets_a_vote(cores: Cores, content: BatchContent) -> None:
    output = cores.step(BACKUP, cores.proposal(content, SMALL.window))
    assert len(votes_in(output, Prepare)) == 1


@pytest.mark.rule("R1")
def test_a_digest_that_is_not_the_batchs_is_refused(cores: Cores, content: BatchContent) -> None:
    other = cores.content(cores.request(bundle=2))
    event = events.ProposalReceived(cores.proposal(other, 1).pre_prepare, content)
    output = cores.step(BACKUP, event)
    assert reasons(output) == ["batch-digest-mismatch"]
    assert not output.own


@pytest.mark.rule("R1")
def test_the_digest_covers_time_order_and_the_clients_signatures(cores: Cores) -> None:
    first, second = cores.request(0), cores.request(1)
    forged = Verified(body=first.body, envelope=Envelope(first.envelope.body, bytes(64)))
    digests = {
        cores.content(first, second, time=5).digest,
        cores.content(second, first, time=5).digest,
        cores.content(first, second, time=6).digest,
        cores.content(forged, second, time=5).digest,
        cores.content(first, time=5).digest,
    }
    assert len(digests) == 5


# -- R2: one digest per view and number


@pytest.mark.rule("R2")
def test_a_backup_refuses_a_second_digest_for_one_slot(cores: Cores, content: BatchContent) -> None:
    accept(cores, BACKUP, content)
    other = cores.content(cores.request(bundle=2))
    output = cores.step(BACKUP, cores.proposal(other, 1))
    assert "second-pre-prepare" in reasons(output)
    assert not output.own
    assert cores.cores[BACKUP].log.slot(1).digest == content.digest


@pytest.mark.rule("R2")
def test_a_repeated_pre_prepare_is_neither_evidence_nor_a_new_vote(
    cores: Cores, content: BatchContent
) -> None:
    accept(cores, BACKUP, content)
    output = cores.step(BACKUP, cores.proposal(content, 1))
    assert output.own == output.evidence == output.rejections == ()


# -- R4, R6: prepared


@pytest.mark.rule("R4")
def test_a_backup_is_prepared_with_the_pre_prepare_and_q_minus_1_prepares(
    cores: Cores, content: BatchContent
) -> None:
    accept(cores, BACKUP, content)
    assert not commits_of(cores, BACKUP), "its own PREPARE is one of the two that it needs"
    cores.receive(BACKUP, Prepare(2, 0, 1, content.digest))
    assert commits_of(cores, BACKUP) == [Commit(BACKUP, 0, 1, content.digest)]


@pytest.mark.rule("R4")
def test_a_prepare_of_the_primary_does_not_count(cores: Cores, content: BatchContent) -> None:
    accept(cores, BACKUP, content)
    output = cores.receive(BACKUP, Prepare(0, 0, 1, content.digest))
    assert reasons(output) == ["prepare-of-the-primary"]
    assert not commits_of(cores, BACKUP)


@pytest.mark.rule("R4")
def test_prepares_without_a_pre_prepare_prepare_nothing(
    cores: Cores, content: BatchContent
) -> None:
    for backup in (2, 3):
        cores.receive(BACKUP, Prepare(backup, 0, 1, content.digest))
    assert not commits_of(cores, BACKUP)
    assert not cores.cores[BACKUP].log.slot(1).prepared


@pytest.mark.rule("R4")
@pytest.mark.parametrize("wrong", ["digest", "view", "seq"])
def test_prepares_that_differ_from_the_assignment_do_not_count(
    cores: Cores, content: BatchContent, wrong: str
) -> None:
    accept(cores, BACKUP, content)
    view, seq = int(wrong == "view"), 1 + (wrong == "seq")
    digest = bytes(32) if wrong == "digest" else content.digest
    for backup in (2, 3):
        cores.receive(BACKUP, Prepare(backup, view, seq, digest))
    assert not commits_of(cores, BACKUP)


@pytest.mark.rule("R4")
def test_four_replicas_go_on_with_one_backup_down() -> None:
    cores = Cores()
    cores.ask(0, cores.request())
    cores.step(0, events.TurnEnded())
    cores.run(lose=lambda a, b, _packet: 3 in (a, b))
    assert cores.states == [1, 1, 1, 0]


@pytest.mark.rule("R6")
def test_a_vote_that_is_repeated_counts_once(cores: Cores, content: BatchContent) -> None:
    cores.step(BACKUP, cores.proposal(content, 1))  # its own vote is not durable yet
    for _ in range(3):
        cores.receive(BACKUP, Prepare(2, 0, 1, content.digest))
    assert not commits_of(cores, BACKUP)


@pytest.mark.rule("R6")
@pytest.mark.parametrize("n", [5, 6])
def test_clusters_between_3f_plus_1_wait_for_the_larger_quorum(n: int) -> None:
    cores = Cores(n)
    content = cores.content(cores.request())
    accept(cores, BACKUP, content)
    cores.receive(BACKUP, Prepare(2, 0, 1, content.digest))
    assert not commits_of(cores, BACKUP), "2f PREPAREs are not enough"
    cores.receive(BACKUP, Prepare(3, 0, 1, content.digest))
    own_votes(cores, BACKUP, cores.outputs[BACKUP][-1])
    for replica in (2, 3):
        cores.receive(BACKUP, Commit(replica, 0, 1, content.digest))
    assert not executed(cores, BACKUP), "2f+1 COMMITs are not enough"
    cores.receive(BACKUP, Commit(0, 0, 1, content.digest))
    assert executed(cores, BACKUP) == [1]


# -- R5: committed


@pytest.mark.rule("R5")
def test_commits_without_prepared_never_execute(cores: Cores, content: BatchContent) -> None:
    accept(cores, BACKUP, content)
    for replica in (0, 2, 3):
        cores.receive(BACKUP, Commit(replica, 0, 1, content.digest))
    assert not executed(cores, BACKUP)


@pytest.mark.rule("R5")
def test_a_prepared_batch_executes_with_q_commits(cores: Cores, content: BatchContent) -> None:
    accept(cores, BACKUP, content)
    own_votes(cores, BACKUP, cores.receive(BACKUP, Prepare(2, 0, 1, content.digest)))
    cores.receive(BACKUP, Commit(2, 0, 1, content.digest))
    assert not executed(cores, BACKUP), "two of three"
    cores.receive(BACKUP, Commit(2, 0, 1, content.digest))
    assert not executed(cores, BACKUP), "the same one again"
    cores.receive(BACKUP, Commit(3, 0, 1, bytes(32)))
    assert not executed(cores, BACKUP), "another digest"
    cores.receive(BACKUP, Commit(0, 0, 1, content.digest))
    assert executed(cores, BACKUP) == [1]


# -- R8: in order, once


def committed(cores: Cores, content: BatchContent, seq: int) -> events.CommittedBatchReceived:
    return events.CommittedBatchReceived(cores.commit_votes(content, seq), content, 2)


@pytest.mark.rule("R8")
def test_batches_execute_in_order_whatever_the_order_of_their_commits(cores: Cores) -> None:
    batches = {seq: cores.content(cores.request(bundle=seq)) for seq in (1, 2, 3)}
    for seq in (3, 2, 1):
        cores.step(BACKUP, committed(cores, batches[seq], seq))
        assert executed(cores, BACKUP) == ([] if seq > 1 else [1, 2, 3])


@pytest.mark.rule("R8")
def test_no_number_executes_twice(cores: Cores, content: BatchContent) -> None:
    event = committed(cores, content, 1)
    for _ in range(2):
        cores.step(BACKUP, event)
    cores.step(BACKUP, cores.executed(1, content, False))
    cores.step(BACKUP, event)
    assert executed(cores, BACKUP) == [1]


# -- R9, R10: early messages


@pytest.mark.rule("R9")
def test_votes_that_come_before_their_pre_prepare_are_kept(
    cores: Cores, content: BatchContent
) -> None:
    cores.receive(BACKUP, Prepare(2, 0, 1, content.digest))
    cores.receive(BACKUP, Prepare(3, 0, 1, content.digest))
    for replica in (0, 2, 3):
        cores.receive(BACKUP, Commit(replica, 0, 1, content.digest))
    cores.step(BACKUP, cores.proposal(content, 1))
    assert executed(cores, BACKUP) == [1]


@pytest.mark.rule("R10")
def test_a_primary_stops_at_its_high_watermark() -> None:
    cores = Cores()
    for bundle in range(1, 30):
        cores.ask(0, cores.request(bundle % 3, bundle // 3 + 1))
        cores.step(0, events.TurnEnded())
        for output in cores.outputs[0]:
            for send in output.sends:
                if isinstance(send.packet, Proposal):
                    seq = cores.cores[0].ordering.next_seq - 1
                    slot = cores.cores[0].log.slot(seq)
                    assert slot.content is not None
                    cores.step(0, committed(cores, slot.content, seq))
                    cores.step(0, cores.executed(seq, slot.content, False))
        cores.outputs[0].clear()
    assert cores.cores[0].ordering.next_seq - 1 == cores.cores[0].log.high == SMALL.window


@pytest.mark.rule("R10")
def test_a_proposal_a_little_above_the_window_is_voted_on_when_the_window_moves(
    cores: Cores,
) -> None:
    early = SMALL.window + 1
    content = cores.content(cores.request(bundle=early))
    cores.step(BACKUP, cores.proposal(content, early))
    votes = tuple(
        cores.sign(i, Checkpoint(i, SMALL.checkpoint_interval, b"s" * 32)) for i in (0, 2, 3)
    )
    output = cores.step(BACKUP, events.CheckpointProofReceived(votes))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 0, early, content.digest)]


@pytest.mark.rule("R10")
def test_a_proposal_far_above_the_window_is_not_kept(cores: Cores, content: BatchContent) -> None:
    far = SMALL.window + SMALL.checkpoint_interval + 1
    cores.step(BACKUP, cores.proposal(content, far))
    assert not cores.cores[BACKUP].ordering._early
    cores.receive(BACKUP, Prepare(2, 0, far, content.digest))
    assert cores.cores[BACKUP].log.get(far) is None


# -- R38: a new view runs the phases again


@pytest.mark.rule("R38")
def test_what_a_new_view_proposes_again_is_voted_on_and_not_executed_again() -> None:
    cores = Cores()
    cores.ask(0, cores.request())
    cores.step(0, events.TurnEnded())
    cores.run()
    assert cores.states == [1] * 4
    before = [core.queue.handed for core in cores.cores]
    for i in (1, 2, 3):
        for accuser in (2, 3):
            cores.receive(i, Suspect(accuser, 0))
    seen: list[tuple[int, int]] = []
    cores.run(lose=lambda a, _b, packet: bool(seen.extend(_votes(a, packet))))
    assert [core.views.view for core in cores.cores] == [1] * 4
    assert {(voter, 1) for voter in (0, 2, 3)} <= set(seen), "the phases run again"
    assert [core.queue.handed for core in cores.cores] == before


def _votes(sender: int, packet: Packet) -> list[tuple[int, int]]:
    body = decode_body(packet.body) if isinstance(packet, Envelope) else None
    return [(sender, body.seq)] if isinstance(body, Commit) and body.view == 1 else []
