"""The agreed time: proposed by the primary, checked once, and only against the future (R12)."""

import pytest
from cores import SMALL, Cores, reasons, sent, votes_in

from pbft.codec import NULL_DIGEST
from pbft.core import events
from pbft.core.batches import BatchContent
from pbft.messages import NewView, Prepare, PrePrepare, Proposal, Suspect, ViewChange

BACKUP = 2
TOLERANCE = SMALL.clock_tolerance_ms * 1000
HOUR = 3_600_000_000


@pytest.fixture
def cores() -> Cores:
    return Cores()


def batch_at(cores: Cores, offset: int) -> BatchContent:
    return cores.content(cores.request(), time=cores.now.wall + offset)


@pytest.mark.rule("R12")
@pytest.mark.parametrize("ahead", [1, HOUR, 2**63 - 1 - 2 * 10**15])
def test_a_time_ahead_of_the_clock_by_more_than_the_tolerance_is_refused(
    cores: Cores, ahead: int
) -> None:
    output = cores.step(BACKUP, cores.proposal(batch_at(cores, TOLERANCE + ahead), 1))
    assert reasons(output) == ["proposed-time-ahead"]
    assert not output.own
    assert not output.persist


@pytest.mark.rule("R12")
def test_a_refused_time_does_not_bind_the_slot(cores: Cores) -> None:
    cores.step(BACKUP, cores.proposal(batch_at(cores, TOLERANCE + 1), 1))
    output = cores.step(BACKUP, cores.proposal(batch_at(cores, 0), 1))
    assert len(votes_in(output, Prepare)) == 1


@pytest.mark.rule("R12")
@pytest.mark.parametrize("offset", [TOLERANCE, 1, 0, -1, -TOLERANCE])
def test_a_time_within_the_tolerance_is_accepted_without_suspicion(
    cores: Cores, offset: int
) -> None:
    output = cores.step(BACKUP, cores.proposal(batch_at(cores, offset), 1))
    assert len(votes_in(output, Prepare)) == 1
    assert not sent(output, Suspect)


@pytest.mark.rule("R12")
@pytest.mark.parametrize("behind", [TOLERANCE + 1, HOUR])
def test_a_time_that_lags_behind_is_accepted_but_raises_suspicion(
    cores: Cores, behind: int
) -> None:
    output = cores.step(BACKUP, cores.proposal(batch_at(cores, -behind), 1))
    assert len(votes_in(output, Prepare)) == 1
    assert sent(output, Suspect) == [(None, Suspect(BACKUP, 0))]
    assert cores.cores[BACKUP].views.active, "one voice alone changes nothing"


@pytest.mark.rule("R12")
def test_two_replicas_that_see_the_time_lag_replace_the_primary(cores: Cores) -> None:
    cores.receive(BACKUP, Suspect(3, 0))
    output = cores.step(BACKUP, cores.proposal(batch_at(cores, -HOUR), 1))
    assert [body.view for body in votes_in(output, ViewChange)] == [1]


@pytest.mark.rule("R12")
def test_a_committed_batch_is_never_checked_against_the_clock(cores: Cores) -> None:
    content = batch_at(cores, HOUR)
    event = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    assert [execute.seq for execute in cores.step(BACKUP, event).execute] == [1]


@pytest.mark.rule("R12")
def test_what_a_new_view_proposes_again_is_never_checked_against_the_clock(cores: Cores) -> None:
    content = batch_at(cores, HOUR)
    proof = cores.prepared_proof(content, 1)
    changes = tuple(
        cores.envelope(i, ViewChange(i, 1, 0, bytes(32), (), (proof,) if i == 3 else ()))
        for i in (0, 1, 3)
    )
    again = cores.envelope(1, PrePrepare(1, 1, 1, content.digest))
    core = cores.cores[BACKUP]
    core.log.add_content(core.log.slot(1), content)
    output = cores.receive(BACKUP, NewView(1, 1, changes, (again,)))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 1, content.digest)]


@pytest.mark.rule("R12")
def test_a_primary_never_proposes_an_earlier_time_than_before(cores: Cores) -> None:
    times = []
    for bundle, shift in ((1, 0), (2, -10_000)):
        cores.pass_time(shift)
        cores.ask(0, cores.request(bundle - 1))
        output = cores.step(0, events.TurnEnded())
        times += [s.packet.batch.time for s in output.sends if isinstance(s.packet, Proposal)]
    assert len(times) == 2
    assert times == sorted(times)


# -- empty batches


def due(cores: Cores, deadline: int | None) -> None:
    """The backup executes batch 1, after which the state's next deadline is `deadline`."""
    content = batch_at(cores, 0)
    event = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    cores.step(BACKUP, event)
    cores.step(BACKUP, events.Executed(1, None, (), deadline))


@pytest.mark.rule("R12")
def test_an_empty_batch_without_a_deadline_is_refused(cores: Cores) -> None:
    output = cores.step(BACKUP, cores.proposal(cores.content(), 1))
    assert reasons(output) == ["empty-batch"]
    assert not output.own


@pytest.mark.rule("R12")
@pytest.mark.parametrize(("early", "accepted"), [(1, False), (0, True), (-5, True)])
def test_an_empty_batch_is_valid_only_from_the_deadline_on(
    cores: Cores, early: int, accepted: bool
) -> None:
    due(cores, cores.now.wall + early)
    output = cores.step(BACKUP, cores.proposal(cores.content(), 2))
    assert bool(votes_in(output, Prepare)) is accepted


@pytest.mark.rule("R12")
def test_an_empty_batch_waits_for_its_predecessor_and_is_judged_then(cores: Cores) -> None:
    waiting = cores.proposal(cores.content(), 2)
    assert not cores.step(BACKUP, waiting).own
    content = batch_at(cores, 0)
    commits = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    cores.step(BACKUP, commits)
    output = cores.step(BACKUP, events.Executed(1, None, (), cores.now.wall))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 0, 2, waiting.content.digest)]


@pytest.mark.rule("R12")
def test_a_primary_proposes_an_empty_batch_only_when_a_deadline_is_due(cores: Cores) -> None:
    content = batch_at(cores, 0)
    event = events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 3)
    cores.step(0, event)
    cores.step(0, events.Executed(1, None, (), cores.now.wall + 1000))
    cores.cores[0].ordering.next_seq = 2
    assert not cores.step(0, events.TurnEnded()).sends
    cores.pass_time(1)
    [proposal] = cores.step(0, events.TurnEnded()).sends
    assert isinstance(proposal.packet, Proposal)
    assert not proposal.packet.batch.requests
    assert proposal.packet.batch.time >= cores.now.wall


@pytest.mark.rule("R12")
def test_the_null_batch_of_a_new_view_is_valid_without_a_deadline(cores: Cores) -> None:
    content = batch_at(cores, 0)
    proof = cores.prepared_proof(content, 2)
    changes = tuple(
        cores.envelope(i, ViewChange(i, 1, 0, bytes(32), (), (proof,) if i == 3 else ()))
        for i in (0, 1, 3)
    )
    proposals = tuple(
        cores.envelope(1, PrePrepare(1, 1, seq, digest))
        for seq, digest in ((1, NULL_DIGEST), (2, content.digest))
    )
    output = cores.receive(BACKUP, NewView(1, 1, changes, proposals))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 1, NULL_DIGEST)]
