"""What a replica must hold before it votes (R3), and what it never votes on again (R27)."""

import pytest
from cores import Cores, reasons, sent, votes_in
from view_changes import count_own, leave, new_view, prepared_at, quiet, view_change

from pbft.core import events
from pbft.core.certificates import check_prepared
from pbft.core.output import Output
from pbft.core.records import batch_write
from pbft.core.voting import BrokenPromise
from pbft.messages import (
    BatchBody,
    Checkpoint,
    Commit,
    CommittedBatch,
    FetchBatch,
    FetchBatches,
    NewView,
    Prepare,
    PrePrepare,
    Proposal,
    ViewChange,
)

PRIMARY, BACKUP = 0, 2
VOTES = (PrePrepare, Prepare, Commit, Checkpoint, ViewChange)


@pytest.fixture
def cores() -> Cores:
    return Cores()


def written(output: Output, table: str) -> list[bytes]:
    return [write.key for write in output.persist if write.table == table]


# -- R3: the bodies first


@pytest.mark.rule("R3")
def test_a_backup_writes_the_bodies_and_its_prepare_in_one_transaction(cores: Cores) -> None:
    content = cores.content(cores.request())
    output = cores.step(BACKUP, cores.proposal(content, 1))
    assert len(votes_in(output, Prepare)) == 1
    assert batch_write(1, content) in output.persist
    record = cores.restart(BACKUP).log.slot(1)
    assert record.content == content
    assert record.own_prepare is not None


@pytest.mark.rule("R3")
def test_a_primary_writes_the_bodies_and_its_pre_prepare_in_one_transaction(cores: Cores) -> None:
    cores.ask(PRIMARY, cores.request())
    output = cores.step(PRIMARY, events.TurnEnded())
    [proposal] = [send.packet for send in output.sends if isinstance(send.packet, Proposal)]
    slot = cores.restart(PRIMARY).log.slot(1)
    assert slot.content is not None
    assert slot.content.batch == proposal.batch
    assert slot.pre_prepare is not None
    assert slot.pre_prepare.envelope == proposal.pre_prepare


@pytest.mark.rule("R3")
def test_a_backup_without_the_bodies_does_not_vote(cores: Cores) -> None:
    content = cores.content(cores.request())
    proof = cores.prepared_proof(content, 1)
    changes = [view_change(cores, 3, 1, [proof]), *quiet(cores, 1, 0, 1)]
    output = cores.receive(BACKUP, new_view(cores, *changes))
    assert cores.cores[BACKUP].views.active
    assert not votes_in(output, Prepare)
    assert not output.own
    for voter in (0, 3):
        cores.receive(BACKUP, Prepare(voter, 1, 1, content.digest))
    assert not cores.cores[BACKUP].log.slot(1).prepared


@pytest.mark.rule("R3")
def test_bodies_are_kept_until_a_stable_checkpoint_covers_them(cores: Cores) -> None:
    digests = [prepared_at(cores, BACKUP, seq) for seq in (1, 2)]
    leave(cores, BACKUP, 1)
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    cores.restart(BACKUP)
    kept = [key[8:] for table, key in sorted(cores.disks[BACKUP]) if table == "batches"]
    assert kept == digests, "they outlive their view and a restart"
    cores.cores[BACKUP].queue.jump(8)
    for seq, voters in ((4, (0, 1)), (8, (0, 1, 3))):
        for voter in voters:
            cores.receive(BACKUP, Checkpoint(voter, seq, b"s" * 32))
        kept = [key for table, key in cores.disks[BACKUP] if table == "batches"]
        assert bool(kept) == (seq == 4), "q, not fewer, let go of them"


@pytest.mark.rule("R3")
@pytest.mark.parametrize("n", [4, 5, 6, 7, 10])
def test_a_prepared_certificate_names_enough_correct_holders_of_its_bodies(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    found = check_prepared(quorum, cores.prepared_proof(cores.content(cores.request()), 1))
    assert len(set(found.holders)) - quorum.f >= quorum.q - quorum.f >= quorum.w


# -- R27: between VIEW-CHANGE and NEW-VIEW


@pytest.mark.rule("R27")
def test_after_a_view_change_nothing_of_the_old_view_gets_a_vote(cores: Cores) -> None:
    content = cores.content(cores.request())
    own = cores.step(BACKUP, cores.proposal(content, 1))
    leave(cores, BACKUP, 1)
    outputs = count_own(cores, BACKUP, own)
    outputs.append(cores.receive(BACKUP, Prepare(3, 0, 1, content.digest)))
    outputs.append(cores.receive(BACKUP, Prepare(1, 0, 1, content.digest)))
    for voter in (0, 1, 3):
        outputs.append(cores.receive(BACKUP, Commit(voter, 0, 1, content.digest)))
    late = cores.content(cores.request(bundle=2))
    outputs.append(cores.step(BACKUP, cores.proposal(late, 2)))
    assert reasons(outputs[-1]) == ["pre-prepare-of-another-view"]
    assert not [message for output in outputs for message in output.own]
    assert not [execute for output in outputs for execute in output.execute]


@pytest.mark.rule("R27")
def test_a_primary_that_has_left_proposes_nothing(cores: Cores) -> None:
    cores.ask(PRIMARY, cores.request())
    leave(cores, PRIMARY, 1)
    assert not cores.step(PRIMARY, events.TurnEnded()).sends


@pytest.mark.rule("R27")
def test_nothing_of_the_new_view_gets_a_vote_before_it_is_entered(cores: Cores) -> None:
    content = cores.content(cores.request())
    leave(cores, BACKUP, 1, (0, 3))
    early = [cores.step(BACKUP, cores.proposal(content, 1, view=1))]
    early += [cores.receive(BACKUP, Prepare(i, 1, 1, content.digest)) for i in (0, 3)]
    early += [cores.receive(BACKUP, Commit(i, 1, 1, content.digest)) for i in (0, 1, 3)]
    assert not [message for output in early for message in output.own]
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    output = cores.step(BACKUP, cores.proposal(content, 1, view=1))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 1, content.digest)]
    assert votes_in(output, Commit) == [Commit(BACKUP, 1, 1, content.digest)], "votes are kept (R9)"


@pytest.mark.rule("R27")
@pytest.mark.parametrize("restarted", [False, True])
def test_no_lower_view_ever_gets_a_vote_again(cores: Cores, restarted: bool) -> None:
    leave(cores, BACKUP, 3)
    if restarted:
        cores.restart(BACKUP)
    gate, slot = cores.cores[BACKUP].gate, cores.cores[BACKUP].log.slot(1)
    with pytest.raises(BrokenPromise):
        gate.prepare(slot, 2, b"d" * 32)
    with pytest.raises(BrokenPromise):
        gate.commit(slot, 2, b"d" * 32)
    with pytest.raises(BrokenPromise):
        gate.pre_prepare(slot, 2, b"d" * 32)
    with pytest.raises(BrokenPromise):
        gate.view_change(view_change(cores, BACKUP, 2))
    with pytest.raises(BrokenPromise):
        gate.new_view(2, (), ())


@pytest.mark.rule("R27")
def test_a_view_that_was_entered_binds_without_a_view_change_of_its_own(cores: Cores) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    with pytest.raises(BrokenPromise):
        cores.cores[BACKUP].gate.prepare(cores.cores[BACKUP].log.slot(1), 0, b"d" * 32)


@pytest.mark.rule("R27")
def test_repair_goes_on_between_views(cores: Cores) -> None:
    content = cores.content(cores.request())
    leave(cores, BACKUP, 1, (0, 3))
    committed = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    assert [execute.seq for execute in cores.step(BACKUP, committed).execute] == [1]
    [body] = cores.receive(BACKUP, FetchBatch(3, 1, content.digest)).sends
    assert isinstance(body.packet, BatchBody)
    [batch] = cores.receive(BACKUP, FetchBatches(3, 1, 1)).sends
    assert isinstance(batch.packet, CommittedBatch)
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, 4, b"s" * 32))
    assert cores.cores[BACKUP].checkpoints.stable_seq == 4
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    assert cores.cores[BACKUP].views.active


# -- one gate, one promise


@pytest.mark.rule("R2")
@pytest.mark.parametrize("restarted", [False, True])
def test_the_gate_lets_no_second_digest_through(cores: Cores, restarted: bool) -> None:
    prepared_at(cores, BACKUP, 1)
    if restarted:
        cores.restart(BACKUP)
    gate, slot = cores.cores[BACKUP].gate, cores.cores[BACKUP].log.slot(1)
    with pytest.raises(BrokenPromise):
        gate.prepare(slot, 0, b"d" * 32)
    with pytest.raises(BrokenPromise):
        gate.commit(slot, 0, b"d" * 32)
    with pytest.raises(BrokenPromise):
        gate.pre_prepare(slot, 0, b"d" * 32)


@pytest.mark.rule("R27")
def test_a_vote_in_a_later_view_binds_by_itself(cores: Cores) -> None:
    gate, slot = cores.cores[BACKUP].gate, cores.cores[BACKUP].log.slot(1)
    slot.own_prepare = cores.sign(BACKUP, Prepare(BACKUP, 3, 1, b"d" * 32))
    with pytest.raises(BrokenPromise):
        gate.prepare(slot, 2, b"d" * 32)


@pytest.mark.rule("R22")
def test_the_gate_lets_no_proposal_through_while_it_is_shut(cores: Cores) -> None:
    cores.ask(PRIMARY, cores.request())
    core = cores.cores[PRIMARY]
    core.gate.silence("diverged")
    assert not cores.step(PRIMARY, events.TurnEnded()).sends
    with pytest.raises(BrokenPromise):
        core.gate.pre_prepare(core.log.slot(1), 0, b"d" * 32)


@pytest.mark.rule("R2")
def test_a_primary_that_restarts_goes_on_after_what_it_has_proposed(cores: Cores) -> None:
    cores.ask(PRIMARY, cores.request())
    cores.step(PRIMARY, events.TurnEnded())
    cores.restart(PRIMARY)
    cores.ask(PRIMARY, cores.request(bundle=2))
    [proposal] = [
        send.packet
        for send in cores.step(PRIMARY, events.TurnEnded()).sends
        if isinstance(send.packet, Proposal)
    ]
    assert cores.cores[PRIMARY].ordering.next_seq == 3
    assert cores.cores[PRIMARY].log.slot(2).digest is not None
    assert proposal.batch.requests == (cores.request(bundle=2).envelope,)


@pytest.mark.rule("R39")
def test_a_commit_is_written_with_its_prepared_certificate(cores: Cores) -> None:
    content = cores.content(cores.request())
    own = cores.step(BACKUP, cores.proposal(content, 1))
    cores.receive(BACKUP, Prepare(3, 0, 1, content.digest))
    [output] = count_own(cores, BACKUP, own)
    assert votes_in(output, Commit) == [Commit(BACKUP, 0, 1, content.digest)]
    slot = cores.restart(BACKUP).log.slot(1)
    assert slot.prepared
    assert slot.own_commit is not None
    assert slot.proof is not None
    assert check_prepared(cores.contexts[0].quorum, slot.proof).digest == content.digest


@pytest.mark.rule("R39")
def test_a_view_change_and_a_new_view_are_written_with_the_view_they_bind_to(cores: Cores) -> None:
    output = leave(cores, 1, 1)
    assert written(output, "view") == [b"current"]
    assert not cores.restart(1).views.active
    cores.receive(1, view_change(cores, 3, 1))
    output = cores.receive(1, view_change(cores, 0, 1))
    assert sent(output, NewView)
    assert written(output, "view") == [b"current"]
    assert cores.restart(1).views.active
