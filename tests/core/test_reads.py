"""Fast reads: answered only where they meet every acknowledged write (R20)."""

import pytest
from cores import Cores, summary_of, votes_in
from view_changes import count_own, new_view, prepared_at, quiet, view_change

from pbft.core import events
from pbft.core.output import AnswerRead, AnswerState, AnswerStatus
from pbft.messages import Checkpoint, Commit, Prepare, Read, StateQuery, StatusQuery

BACKUP = 2


@pytest.fixture
def cores() -> Cores:
    return Cores()


def refused(cores: Cores) -> bool:
    """Whether the backup refuses a fast read now."""
    client = cores.client_signers[0].public_key
    read = cores.sign(BACKUP, Read(client, 7, 0, (b"q",)))
    [answer] = cores.step(BACKUP, events.Received(read, client)).answers
    assert isinstance(answer, AnswerRead)
    assert answer.read == read.body
    return answer.refused


def answers_at(cores: Cores, seq: int) -> bool:
    """Whether the backup answers a read that any state after `seq` will do for."""
    client = cores.client_signers[0].public_key
    read = cores.sign(BACKUP, Read(client, 8, seq, (b"q",)))
    [answer] = cores.step(BACKUP, events.Received(read, client)).answers
    assert isinstance(answer, AnswerRead)
    return not answer.refused


def execute(cores: Cores, seq: int) -> None:
    content = cores.content(cores.request(bundle=seq))
    votes = cores.commit_votes(content, seq)
    cores.step(BACKUP, events.CommittedBatchReceived(votes, content, 3))
    cores.step(BACKUP, cores.executed(seq, content, False))
    cores.states[BACKUP] = seq


@pytest.mark.rule("R20")
def test_an_idle_replica_answers(cores: Cores) -> None:
    assert not refused(cores)
    execute(cores, 1)
    assert not refused(cores)


@pytest.mark.rule("R20")
@pytest.mark.parametrize("restarted", [False, True])
def test_a_replica_refuses_until_it_has_executed_all_that_it_has_said_commit_for(
    cores: Cores, restarted: bool
) -> None:
    for seq in (1, 2):
        content = cores.content(cores.request(bundle=seq))
        own = cores.step(BACKUP, cores.proposal(content, seq))
        assert not refused(cores) or seq == 2, "a PREPARE alone does not bind"
        cores.receive(BACKUP, Prepare(3, 0, seq, content.digest))
        [output] = count_own(cores, BACKUP, own)
        assert votes_in(output, Commit)
        assert refused(cores)
    if restarted:
        cores.restart(BACKUP)
    execute(cores, 1)
    assert refused(cores)
    execute(cores, 2)
    assert not refused(cores)


@pytest.mark.rule("R20")
@pytest.mark.parametrize("restarted", [False, True])
def test_after_entering_a_view_it_refuses_until_max_s_is_executed(
    cores: Cores, restarted: bool
) -> None:
    proof = cores.prepared_proof(cores.content(cores.request(bundle=2)), 2)
    changes = [view_change(cores, 3, 1, [proof]), *quiet(cores, 1, 0, 1)]
    cores.receive(BACKUP, new_view(cores, *changes))
    if restarted:
        cores.restart(BACKUP)
    assert refused(cores)
    execute(cores, 1)
    assert refused(cores)
    execute(cores, 2)
    assert not refused(cores)


def test_a_read_with_a_token_is_answered_once_that_much_is_executed(cores: Cores) -> None:
    execute(cores, 1)
    prepared_at(cores, BACKUP, 2)
    assert refused(cores), "there may be an acknowledged write that it has not executed"
    assert answers_at(cores, 1)
    assert not answers_at(cores, 2)
    execute(cores, 2)
    assert answers_at(cores, 2)
    cores.cores[BACKUP].gate.silence("unconfirmed")
    assert not answers_at(cores, 2)


def test_a_client_is_shown_the_state_by_the_shell(cores: Cores) -> None:
    client = cores.client_signers[0].public_key
    query = cores.sign(BACKUP, StateQuery(client, 7, 0, (b"\x00",)))
    output = cores.step(BACKUP, events.Received(query, client))
    assert output.answers == (AnswerState(query.body),)


@pytest.mark.rule("R20")
def test_a_replica_that_may_not_vote_refuses(cores: Cores) -> None:
    cores.cores[BACKUP].gate.silence("unconfirmed")
    assert refused(cores)


@pytest.mark.rule("R20")
def test_what_a_transferred_state_holds_counts_as_executed(cores: Cores) -> None:
    prepared_at(cores, BACKUP, 1)
    assert refused(cores)
    cores.step(BACKUP, events.StateInstalled(summary_of(4), (), None))
    assert not refused(cores)


def test_a_client_that_asks_how_a_replica_is_gets_an_answer(cores: Cores) -> None:
    client = cores.client_signers[0].public_key
    query = cores.sign(BACKUP, StatusQuery(client, 7))
    output = cores.step(BACKUP, events.Received(query, client))
    assert output.answers == (AnswerStatus(query.body),)


@pytest.mark.rule("R20")
@pytest.mark.rule("R41")
def test_a_replica_whose_state_is_older_than_its_stable_checkpoint_refuses_after_a_restart(
    cores: Cores,
) -> None:
    """What it has said COMMIT for may be forgotten by then, together with the slots."""
    for seq in range(1, 5):
        execute(cores, seq)
    for replica in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(replica, 4, b"d" * 32))
    cores.states[BACKUP] = 0
    cores.disks[BACKUP] = {
        key: value for key, value in cores.disks[BACKUP].items() if key[0] != "slots"
    }
    cores.restart(BACKUP)
    assert refused(cores)
