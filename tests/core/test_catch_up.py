"""What a replica that was away gets back, and what that may cost those who help (R23, R25, R37)."""

import pytest
from cores import SMALL, Cores, beat, reasons, sent, summary_of, votes_in

from pbft.codec import checkpoint_digest
from pbft.config import Parameters
from pbft.core import events
from pbft.core.fetching import BATCHES_PER_FETCH
from pbft.core.output import Output
from pbft.messages import (
    Checkpoint,
    CheckpointProof,
    CommittedBatch,
    FetchBatch,
    FetchBatches,
    Prepare,
)

HELPER, LATE = 0, 3
K = SMALL.checkpoint_interval
BEAT = SMALL.heartbeat_interval_ms


@pytest.fixture
def cores() -> Cores:
    return Cores()


def commit(cores: Cores, i: int, seq: int, view: int = 0) -> Output:
    content = cores.content(cores.request(bundle=seq), time=seq)
    votes = cores.commit_votes(content, seq, view)
    return cores.step(i, events.CommittedBatchReceived(votes, content, 1))


def execute(cores: Cores, i: int, seq: int) -> Output:
    commit(cores, i, seq)
    summary = summary_of(seq) if seq % K == 0 else None
    return cores.step(i, events.Executed(seq, summary, (), None))


# -- asking


def behind(cores: Cores, *others: tuple[int, int]) -> Output:
    """The late one stands still while others (who, last executed) are ahead."""
    cores.step(LATE, events.Started(1))
    for who, executed in others:
        cores.receive(LATE, beat(who, executed))
    cores.tick(LATE, BEAT)
    return cores.tick(LATE, BEAT)


@pytest.mark.rule("R23")
def test_a_replica_that_stands_still_asks_those_ahead_for_explicit_ranges_in_turn(
    cores: Cores,
) -> None:
    outputs = [behind(cores, (0, 3), (1, 0), (2, 1000))]
    outputs += [cores.tick(LATE, BEAT) for _ in range(3)]
    asked = [entry for output in outputs for entry in sent(output, FetchBatches)]
    short, long = FetchBatches(LATE, 1, 3), FetchBatches(LATE, 1, BATCHES_PER_FETCH)
    assert asked == [(0, short), (2, long), (0, short), (2, long)]


@pytest.mark.rule("R23")
def test_a_replica_that_is_not_behind_or_moves_by_itself_asks_nobody(cores: Cores) -> None:
    assert not sent(behind(cores, (0, 0), (1, 0)), FetchBatches)
    cores.receive(LATE, beat(0, 9))
    for seq in (1, 2, 3):
        execute(cores, LATE, seq)
        assert not sent(cores.tick(LATE, BEAT), FetchBatches)


@pytest.mark.rule("R23")
def test_it_asks_for_more_as_soon_as_an_answer_is_used_up(cores: Cores) -> None:
    behind(cores, (0, 3))
    cores.receive(LATE, beat(0, 7))
    outputs = [execute(cores, LATE, seq) for seq in (1, 2, 3)]
    asked = [sent(output, FetchBatches) for output in outputs]
    assert asked == [[], [], [(0, FetchBatches(LATE, 4, 7))]]


@pytest.mark.rule("R23")
def test_a_committed_batch_counts_whatever_its_view_and_moves_no_view(cores: Cores) -> None:
    assert [execute.seq for execute in commit(cores, LATE, 1, view=17).execute] == [1]
    assert (cores.cores[LATE].views.view, cores.cores[LATE].views.active) == (0, True)


@pytest.mark.rule("R23")
def test_a_committed_batch_outlives_a_restart(cores: Cores) -> None:
    commit(cores, LATE, 2)
    cores.restart(LATE)
    assert [execute.seq for execute in commit(cores, LATE, 1).execute] == [1, 2]


@pytest.mark.rule("R23")
def test_the_same_batch_from_two_helpers_is_kept_once(cores: Cores) -> None:
    assert commit(cores, LATE, 2).persist
    assert not commit(cores, LATE, 2).persist


@pytest.mark.rule("R12")
def test_an_empty_batch_that_a_quorum_has_committed_gets_a_vote_without_a_deadline(
    cores: Cores,
) -> None:
    tick = cores.content()
    votes = cores.commit_votes(tick, 1)
    cores.step(LATE, events.CommittedBatchReceived(votes, tick, 1))
    cores.step(LATE, events.Executed(1, None, (), None))
    output = cores.step(LATE, cores.proposal(tick, 1))
    assert votes_in(output, Prepare) == [Prepare(LATE, 0, 1, tick.digest)]
    other = cores.content(time=cores.now.wall + 1)
    votes = cores.commit_votes(tick, 2)
    cores.step(LATE, events.CommittedBatchReceived(votes, tick, 2))
    assert reasons(cores.step(LATE, cores.proposal(other, 2))) == ["empty-batch"]


@pytest.mark.rule("R23")
def test_a_certificate_does_not_pass_for_another_batch(cores: Cores) -> None:
    content, other = cores.content(cores.request()), cores.content(cores.request(bundle=2))
    votes = cores.commit_votes(content, 1)
    output = cores.step(LATE, events.CommittedBatchReceived(votes, other, 1))
    assert reasons(output) == ["batch-digest-mismatch"]
    assert not output.execute
    assert not output.persist


@pytest.mark.rule("R25")
def test_batches_beyond_reach_are_not_kept(cores: Cores) -> None:
    assert not commit(cores, LATE, SMALL.window + K + 1).persist
    assert commit(cores, LATE, SMALL.window + K).persist


# -- helping


@pytest.mark.rule("R23")
def test_a_helper_sends_what_it_has_in_order_and_no_more_than_was_asked(cores: Cores) -> None:
    for seq in (1, 2, 3):
        execute(cores, HELPER, seq)
    output = cores.receive(HELPER, FetchBatches(LATE, 2, 9))
    assert {send.to for send in output.sends} == {LATE}
    seqs = [s.packet.batch.time for s in output.sends if isinstance(s.packet, CommittedBatch)]
    assert seqs == [2, 3]
    assert not cores.receive(HELPER, FetchBatches(LATE, 4, 2)).sends
    assert not cores.receive(HELPER, FetchBatches(LATE, 2**63 - 1, 2**63 - 1)).sends


@pytest.mark.rule("R25")
def test_one_question_earns_a_bounded_number_of_batches() -> None:
    many = BATCHES_PER_FETCH + 10
    cores = Cores(4, Parameters(checkpoint_interval=many, window=2 * many))
    for seq in range(1, many + 1):
        commit(cores, HELPER, seq)
    output = cores.receive(HELPER, FetchBatches(LATE, 1, 2**63 - 1))
    assert len(output.sends) == BATCHES_PER_FETCH


@pytest.mark.rule("R23")
def test_a_helper_that_has_discarded_them_shows_its_stable_checkpoint(cores: Cores) -> None:
    for seq in range(1, 2 * K + 1):
        execute(cores, HELPER, seq)
    for voter in (1, 2, 3):
        cores.receive(HELPER, Checkpoint(voter, 2 * K, checkpoint_digest(summary_of(2 * K))))
    output = cores.receive(HELPER, FetchBatches(LATE, 1, 9))
    proof = cores.cores[HELPER].checkpoints.stable_proof
    assert [send.packet for send in output.sends] == [CheckpointProof(proof)]


@pytest.mark.rule("R25")
def test_repair_has_a_byte_budget_per_peer_that_fills_up_again(cores: Cores) -> None:
    big = cores.request(operations=(b"x" * 1_000_000,))
    content = cores.content(big)
    votes = cores.commit_votes(content, 1)
    cores.step(HELPER, events.CommittedBatchReceived(votes, content, 1))
    outputs = [cores.receive(HELPER, FetchBatch(LATE, 1, content.digest)) for _ in range(20)]
    answered = [bool(output.sends) for output in outputs]
    assert answered == sorted(answered, reverse=True)
    assert 8 <= sum(answered) < 20
    assert reasons(outputs[-1]) == ["repair-budget"]
    assert not cores.receive(HELPER, FetchBatches(LATE, 1, 1)).sends, "one budget for all repair"
    assert cores.receive(HELPER, FetchBatch(2, 1, content.digest)).sends
    cores.pass_time(1000)
    assert cores.receive(HELPER, FetchBatch(LATE, 1, content.digest)).sends


@pytest.mark.rule("R25")
def test_nobody_is_answered_about_what_is_not_there(cores: Cores) -> None:
    assert not cores.receive(HELPER, FetchBatch(LATE, 1, b"d" * 32)).sends
    execute(cores, HELPER, 1)
    assert not cores.receive(HELPER, FetchBatch(LATE, 1, b"d" * 32)).sends


@pytest.mark.rule("R25")
def test_a_replica_that_fetches_a_state_does_not_hoard_what_lies_below_it(cores: Cores) -> None:
    cores.restart(LATE, complete=False)
    last = 20 * K
    for seq in range(1, last + 1):
        commit(cores, LATE, seq)
        if seq % K == 0:
            for voter in (0, 1, 2):
                cores.receive(LATE, Checkpoint(voter, seq, b"s" * 32))
    assert cores.cores[LATE].checkpoints.stable_seq == last
    assert len(cores.cores[LATE].log.above(0)) <= SMALL.window + 3 * K


@pytest.mark.rule("R10")
def test_proposals_above_the_window_wait_for_it_or_are_overtaken_by_it(cores: Cores) -> None:
    content = cores.content(cores.request())
    early = SMALL.window + 1
    cores.step(LATE, cores.proposal(content, early))
    assert not votes_in(execute(cores, LATE, 1), Prepare), "still above the window"
    for voter in (0, 1, 2):
        output = cores.receive(LATE, Checkpoint(voter, 3 * K, b"s" * 32))
    assert not votes_in(output, Prepare), "and now below it"
    assert cores.cores[LATE].log.get(early) is None
