"""What a heartbeat says, and what a peer that is stuck gets again (R25, R37)."""

import pytest
from cores import SMALL, Cores, beat, sent, summary_of
from view_changes import new_view, quiet

from pbft.codec import checkpoint_digest, decode_body, encode
from pbft.core import events
from pbft.core.output import Output
from pbft.core.repair import BURST_BYTES, BYTES_PER_SECOND
from pbft.messages import (
    Checkpoint,
    Commit,
    Envelope,
    NewView,
    Packet,
    Prepare,
    Proposal,
    SlotReport,
    Status,
    ViewChange,
)

HELPER, LATE = 0, 3
K = SMALL.checkpoint_interval
BEAT = SMALL.heartbeat_interval_ms


@pytest.fixture
def cores() -> Cores:
    return Cores()


def execute(cores: Cores, i: int, seq: int) -> Output:
    content = cores.content(cores.request(bundle=seq))
    votes = cores.commit_votes(content, seq)
    cores.step(i, events.CommittedBatchReceived(votes, content, 1))
    summary = summary_of(seq) if seq % K == 0 else None
    return cores.step(i, events.Executed(seq, summary, (), None))


def ordering(cores: Cores) -> None:
    """Batch 1 is prepared at the helper, who leads, and committed nowhere."""
    cores.ask(HELPER, cores.request())
    cores.step(HELPER, events.TurnEnded())
    digest = cores.cores[HELPER].log.slot(1).digest
    assert digest is not None
    for backup in (1, 2):
        cores.receive(HELPER, Prepare(backup, 0, 1, digest))


def repeated(cores: Cores, *reports: SlotReport) -> list[type]:
    """What kinds of message the helper sends to a late one that reports this twice."""
    late = beat(LATE, 0, slots=reports)
    assert not cores.receive(HELPER, late).sends, "once is not stuck"
    sends = cores.receive(HELPER, late).sends
    assert {send.to for send in sends} <= {LATE}
    return [
        type(decode_body(send.packet.body))
        if isinstance(send.packet, Envelope)
        else type(send.packet)
        for send in sends
    ]


@pytest.mark.rule("R25")
@pytest.mark.parametrize(
    ("reports", "kinds"),
    [
        ((), [Proposal, Commit]),
        ((SlotReport(1, False, False),), [Proposal, Commit]),
        ((SlotReport(1, True, False),), [Commit]),
        ((SlotReport(1, True, True),), [Commit]),
    ],
)
def test_a_stuck_peer_gets_just_what_it_lacks(
    cores: Cores, reports: tuple[SlotReport, ...], kinds: list[type]
) -> None:
    ordering(cores)
    assert repeated(cores, *reports) == kinds


@pytest.mark.rule("R25")
@pytest.mark.parametrize(("prepared", "kinds"), [(False, [Prepare]), (True, [])])
def test_a_backup_repeats_its_own_prepare_to_who_is_not_prepared(
    cores: Cores, prepared: bool, kinds: list[type]
) -> None:
    backup = 1
    cores.step(backup, cores.proposal(cores.content(cores.request()), 1))
    late = beat(LATE, 0, slots=(SlotReport(1, True, prepared),))
    cores.receive(backup, late)
    sends = cores.receive(backup, late).sends
    assert [
        type(decode_body(s.packet.body)) for s in sends if isinstance(s.packet, Envelope)
    ] == kinds


@pytest.mark.rule("R25")
def test_the_same_question_earns_one_answer_per_interval(cores: Cores) -> None:
    ordering(cores)
    late = beat(LATE, 0)
    answers = [len(cores.receive(HELPER, late).sends) for _ in range(50)]
    assert answers == [0, 2] + [0] * 48
    cores.pass_time(BEAT)
    assert len(cores.receive(HELPER, late).sends) == 2


@pytest.mark.rule("R25")
def test_a_peer_that_moves_gets_nothing_repeated(cores: Cores) -> None:
    ordering(cores)
    for executed in range(5):
        assert not cores.receive(HELPER, beat(LATE, executed)).sends


@pytest.mark.rule("R25")
def test_votes_of_another_view_are_of_no_use_to_anybody(cores: Cores) -> None:
    ordering(cores)
    for where in ({"view": 1}, {"view": 1, "active": False}):
        late = beat(LATE, 0, **where)
        cores.receive(HELPER, late)
        assert not cores.receive(HELPER, late).sends


@pytest.mark.rule("R37")
def test_a_checkpoint_vote_is_repeated_to_those_who_lack_it(cores: Cores) -> None:
    for seq in range(1, K + 1):
        execute(cores, HELPER, seq)
    late = beat(LATE, K)
    cores.receive(HELPER, late)
    output = cores.receive(HELPER, late)
    digest = checkpoint_digest(summary_of(K))
    assert sent(output, Checkpoint) == [(LATE, Checkpoint(HELPER, K, digest))]


@pytest.mark.rule("R37")
def test_a_heartbeat_reports_what_is_undecided_inside_a_view_only(cores: Cores) -> None:
    cores.step(1, events.Started(1))
    cores.step(1, cores.proposal(cores.content(cores.request()), 1))
    [(_, status)] = sent(cores.tick(1, BEAT), Status)
    assert isinstance(status, Status)
    assert status.slots == (SlotReport(1, True, False),)
    for i in (0, 2):
        cores.receive(1, ViewChange(i, 1, 0, bytes(32), (), ()))
    [(_, status)] = sent(cores.tick(1, BEAT), Status)
    assert isinstance(status, Status)
    assert (status.view, status.active, status.slots) == (1, False, ())
    assert not sent(cores.receive(1, new_view(cores, *quiet(cores, 5, 0, 1, 2))), NewView)


@pytest.mark.rule("R25")
def test_what_a_peer_gets_again_has_a_byte_budget(cores: Cores) -> None:
    for bundle in range(1, SMALL.window + 1):
        cores.ask(HELPER, cores.request(bundle=bundle, operations=(b"x" * 1_000_000,)))
        cores.step(HELPER, events.TurnEnded())
        cores.run(lambda _sender, _receiver, packet: is_checkpoint(packet))
    liar, size = beat(LATE, 0), 0
    for _ in range(20):
        cores.pass_time(BEAT // 2)
        output = cores.receive(HELPER, liar)
        size += sum(len(encode(send.packet)) for send in output.sends)
    assert 0 < size <= BURST_BYTES + BYTES_PER_SECOND + 2_000_000


def is_checkpoint(packet: Packet) -> bool:
    return isinstance(packet, Envelope) and isinstance(decode_body(packet.body), Checkpoint)
