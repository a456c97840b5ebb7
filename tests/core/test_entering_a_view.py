"""Entering a view: what is missing is fetched first, and the phases run again (R34, R38)."""

import pytest
from cores import SMALL, Cores, reasons, sent, votes_in
from view_changes import leave, new_view, prepared_at, quiet, view_change

from pbft.core import events
from pbft.core.batches import BatchContent
from pbft.messages import Checkpoint, Commit, FetchBatch, Prepare, Proposal, ViewChange

BACKUP = 2


@pytest.fixture
def cores() -> Cores:
    return Cores()


# -- R34: what is missing is fetched first


def entered_without_bodies(cores: Cores) -> BatchContent:
    """The backup enters view 1, which proposes a batch again that the backup has never seen."""
    content = cores.content(cores.request())
    changes = [
        view_change(cores, 3, 1, [cores.prepared_proof(content, 1)]),
        *quiet(cores, 1, 0, 1),
    ]
    cores.receive(BACKUP, new_view(cores, *changes))
    return content


@pytest.mark.rule("R34")
def test_missing_bodies_are_asked_of_their_holders_in_turn(cores: Cores) -> None:
    content = entered_without_bodies(cores)
    outputs = [cores.outputs[BACKUP][-1]]
    for _ in range(3):
        outputs.append(cores.tick(BACKUP, 2 * SMALL.heartbeat_interval_ms))
    asked = [entry for output in outputs for entry in sent(output, FetchBatch)]
    wanted = FetchBatch(BACKUP, 1, content.digest)
    assert asked == [(0, wanted), (1, wanted), (0, wanted), (1, wanted)], "signers, but not itself"


@pytest.mark.rule("R34")
def test_bodies_that_were_not_asked_for_are_not_taken(cores: Cores) -> None:
    entered_without_bodies(cores)
    other = cores.content(cores.request(bundle=2))
    output = cores.step(BACKUP, events.BatchReceived(1, other, 0))
    assert not output.own
    assert other.digest not in cores.cores[BACKUP].log.slot(1).contents


@pytest.mark.rule("R34")
def test_the_vote_follows_once_the_bodies_are_here_and_durable(cores: Cores) -> None:
    content = entered_without_bodies(cores)
    output = cores.step(BACKUP, events.BatchReceived(1, content, 0))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 1, content.digest)]
    assert [write.table for write in output.persist] == ["batches", "slots"]
    again = cores.step(BACKUP, events.BatchReceived(1, content, 1))
    assert not again.own
    assert not sent(cores.tick(BACKUP, 2 * SMALL.heartbeat_interval_ms), FetchBatch)


@pytest.mark.rule("R34")
def test_bodies_that_came_with_a_commit_certificate_are_enough(cores: Cores) -> None:
    content = entered_without_bodies(cores)
    votes = cores.commit_votes(content, 1)
    output = cores.step(BACKUP, events.CommittedBatchReceived(votes, content, 3))
    assert [execute.seq for execute in output.execute] == [1]
    late = cores.step(BACKUP, events.BatchReceived(1, content, 0))
    assert not late.persist
    assert not sent(cores.tick(BACKUP, 2 * SMALL.heartbeat_interval_ms), FetchBatch)


@pytest.mark.rule("R34")
@pytest.mark.rule("R40")
def test_a_restart_asks_for_missing_bodies_again(cores: Cores) -> None:
    content = entered_without_bodies(cores)
    cores.restart(BACKUP)
    asked = sent(cores.outputs[BACKUP][-1], FetchBatch)
    assert [body for _, body in asked] == [FetchBatch(BACKUP, 1, content.digest)]
    output = cores.step(BACKUP, events.BatchReceived(1, content, 0))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 1, content.digest)]


@pytest.mark.rule("R34")
def test_bodies_of_a_view_that_was_left_are_not_asked_for_any_more(cores: Cores) -> None:
    content = entered_without_bodies(cores)
    leave(cores, BACKUP, 2, (0, 3))
    output = cores.tick(BACKUP, 2 * SMALL.heartbeat_interval_ms)
    assert not sent(output, FetchBatch)
    assert not cores.step(BACKUP, events.BatchReceived(1, content, 0)).own


@pytest.mark.rule("R34")
def test_bodies_below_a_new_checkpoint_are_not_asked_for_any_more(cores: Cores) -> None:
    entered_without_bodies(cores)
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, 4, b"s" * 32))
    assert not sent(cores.tick(BACKUP, 2 * SMALL.heartbeat_interval_ms), FetchBatch)


# -- R38: proposed again, run again, executed once


@pytest.mark.rule("R38")
def test_an_executed_batch_runs_the_phases_of_the_new_view_and_is_not_executed_again(
    cores: Cores,
) -> None:
    content = cores.content(cores.request())
    committed = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    assert [execute.seq for execute in cores.step(BACKUP, committed).execute] == [1]
    cores.step(BACKUP, cores.executed(1, content, False))
    proof = cores.prepared_proof(content, 1)
    changes = [view_change(cores, 3, 1, [proof]), *quiet(cores, 1, 0, 1)]
    outputs = [cores.receive(BACKUP, new_view(cores, *changes))]
    assert votes_in(outputs[0], Prepare) == [Prepare(BACKUP, 1, 1, content.digest)]
    own = outputs[0].own
    outputs.append(cores.receive(BACKUP, Prepare(3, 1, 1, content.digest)))
    outputs += [cores.step(BACKUP, events.OwnDurable(message)) for message in own]
    assert votes_in(outputs[-1], Commit) == [Commit(BACKUP, 1, 1, content.digest)]
    outputs += [cores.receive(BACKUP, Commit(i, 1, 1, content.digest)) for i in (0, 1, 3)]
    assert not [execute for output in outputs for execute in output.execute]


@pytest.mark.rule("R38")
def test_votes_of_the_old_view_do_not_count_in_the_new_one(cores: Cores) -> None:
    digest = prepared_at(cores, BACKUP, 1)
    for voter in (0, 3):
        cores.receive(BACKUP, Commit(voter, 0, 1, digest))
    [change] = votes_in(leave(cores, BACKUP, 1, (0, 3)), ViewChange)
    cores.receive(BACKUP, new_view(cores, change, *quiet(cores, 1, 0, 1)))
    slot = cores.cores[BACKUP].log.slot(1)
    assert (slot.prepared, slot.prepares.count(digest), slot.commits.count(digest)) == (False, 0, 0)


# -- what the view before has left behind


@pytest.mark.rule("R31")
def test_a_checkpoint_that_comes_with_a_new_view_brings_no_vote_in_the_old_one(
    cores: Cores,
) -> None:
    early = cores.content(cores.request())
    assert not cores.step(BACKUP, cores.proposal(early, SMALL.window + 1)).own
    changes = [view_change(cores, 3, 1, stable=(4, b"s" * 32)), *quiet(cores, 1, 0, 1)]
    assert not cores.receive(BACKUP, new_view(cores, *changes)).own


@pytest.mark.rule("R26")
def test_a_late_proposal_of_the_old_primary_does_not_keep_the_new_one_from_proposing(
    cores: Cores,
) -> None:
    """It had passed the door in the old view, and waited for its turn while the view changed."""
    leader = 1
    request = cores.request()
    cores.ask(leader, request)
    for change in quiet(cores, 1, 0, 2, 3):
        cores.receive(leader, change)
    assert cores.cores[leader].ordering.leading
    late = cores.step(leader, cores.proposal(cores.content(request), 1))
    assert reasons(late) == ["pre-prepare-of-another-view"]
    output = cores.step(leader, events.TurnEnded())
    assert [type(send.packet) for send in output.sends] == [Proposal]
