"""Replicas help one that has forgotten to the checkpoint and the view that it must pass (R41)."""

import pytest
from cores import SMALL, Cores, reasons, sent

from pbft.core import events
from pbft.core.output import Output
from pbft.messages import Incarnation, Proposal, Recovery, Suspect

AMNESIAC = 3
GOAL = SMALL.window
NEXT_CHECKPOINT = GOAL + SMALL.checkpoint_interval
PAUSE_MS = SMALL.recovery_interval_ms


@pytest.fixture
def cores() -> Cores:
    cores = Cores()
    cores.cores[AMNESIAC].gate.silence("forgotten")
    return cores


def recovery(seq: int = GOAL, view: int = 0, number: int = 1) -> Recovery:
    return Recovery(AMNESIAC, number, seq, view)


def plead(cores: Cores, body: Recovery) -> None:
    for i in (0, 1, 2):
        cores.receive(i, body)
        cores.step(i, events.TurnEnded())
    cores.run()


def proposals(output: Output) -> list[Proposal]:
    return [send.packet for send in output.sends if isinstance(send.packet, Proposal)]


@pytest.mark.rule("R41")
def test_an_idle_cluster_orders_empty_batches_up_to_the_checkpoint_above_the_goal(
    cores: Cores,
) -> None:
    plead(cores, recovery())
    assert cores.states[:3] == [NEXT_CHECKPOINT] * 3
    assert [cores.cores[i].checkpoints.stable_seq for i in (0, 1, 2)] == [NEXT_CHECKPOINT] * 3


@pytest.mark.rule("R12")
@pytest.mark.rule("R41")
def test_an_empty_batch_for_nobody_is_refused(cores: Cores) -> None:
    output = cores.step(1, cores.proposal(cores.content(), 1))
    assert reasons(output) == ["empty-batch"]
    cores.receive(1, recovery())
    assert not reasons(cores.step(1, cores.proposal(cores.content(), 1)))


@pytest.mark.rule("R41")
def test_once_the_checkpoint_is_stable_the_view_is_changed_and_no_second_time(
    cores: Cores,
) -> None:
    plead(cores, recovery())
    assert all(core.views.view == 0 for core in cores.cores)
    plead(cores, recovery())
    assert [cores.cores[i].views.view for i in (0, 1, 2)] == [1] * 3
    plead(cores, recovery())
    plead(cores, recovery())
    assert [cores.cores[i].views.view for i in (0, 1, 2)] == [1] * 3
    assert cores.states[:3] == [NEXT_CHECKPOINT] * 3


@pytest.mark.rule("R41")
def test_a_primary_that_orders_nothing_for_the_recovery_is_suspected(cores: Cores) -> None:
    cores.receive(1, recovery())
    assert sent(cores.tick(1, SMALL.request_timeout_ms), Suspect)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("body", [recovery(seq=GOAL + 1), recovery(view=1), recovery(seq=2**62)])
def test_nobody_is_helped_to_what_a_correct_replica_would_not_name(
    cores: Cores, body: Recovery
) -> None:
    assert reasons(cores.receive(0, body)) == ["recovery-out-of-reach"]
    assert not proposals(cores.step(0, events.TurnEnded()))


@pytest.mark.rule("R25")
@pytest.mark.rule("R41")
def test_a_replica_gets_a_new_goal_only_once_in_a_while(cores: Cores) -> None:
    plead(cores, recovery())
    higher = recovery(NEXT_CHECKPOINT + GOAL)
    assert reasons(cores.receive(0, higher)) == ["recovery-too-soon"]
    assert not reasons(cores.receive(0, recovery(GOAL - 1))), "a lower one is no more to ask for"
    cores.pass_time(PAUSE_MS)
    assert not reasons(cores.receive(0, higher))


@pytest.mark.rule("R41")
def test_a_recovery_of_an_earlier_start_gets_no_help(cores: Cores) -> None:
    cores.receive(0, Incarnation(AMNESIAC, 2, 7, True))
    assert reasons(cores.receive(0, recovery(number=1))) == ["recovery-of-an-earlier-start"]


@pytest.mark.rule("R41")
def test_requests_are_ordered_before_empty_batches(cores: Cores) -> None:
    cores.receive(0, recovery())
    cores.ask(0, cores.request())
    first, *rest = proposals(cores.step(0, events.TurnEnded()))
    assert len(first.batch.requests) == 1
    assert not any(proposal.batch.requests for proposal in rest)
