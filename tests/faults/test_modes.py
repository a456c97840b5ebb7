"""Every bundled mode misbehaves, says so, and does no harm while at most f replicas do."""

from collections import Counter

import pytest
from cores import Cores

from pbft.faults.modes import MODES, wrap
from pbft.messages import Proposal
from pbft.simulation.runner import run as run_in_trouble
from pbft.simulation.scenario import Scenario


class Recorder:
    """A transport that tells what it is given for whom."""

    def __init__(self, send):
        self.send = send


each_mode = pytest.mark.parametrize("mode", MODES)
TROUBLE = 2_000_000


@each_mode
@pytest.mark.parametrize("replicas", [4, 5, 7])
def test_f_replicas_of_a_mode_fire_and_the_rest_stays_safe_and_live(run, mode, replicas):
    faulty = dict.fromkeys(range((replicas - 1) // 3), mode)
    outcome = run(faulty, replicas)
    assert outcome.failures == []
    for replica in faulty:
        assert outcome.counted(replica, f"faulty-{mode}") > 0
    assert outcome.rejected(f"faulty-{mode}") == 0


@each_mode
def test_a_mode_does_no_harm_in_crashes_partitions_and_bad_weather_either(mode):
    for replica in (0, 2):
        outcome = run_in_trouble(Scenario(7, faulty=((replica, mode),), trouble=TROUBLE))
        assert outcome.failures == ()


def test_two_modes_of_one_replica_fire_both(run):
    outcome = run({0: "lie+equivocate"})
    assert outcome.failures == []
    assert outcome.counted(0, "faulty-lie") > 0
    assert outcome.counted(0, "faulty-equivocate") > 0


@pytest.mark.parametrize("mode", ["silent", "mute", "equivocate", "forge-request", "bad-signature"])
def test_a_primary_of_whom_nothing_valid_is_heard_is_replaced(run, mode):
    outcome = run({0: mode})
    assert all(machine.node.core.views.view > 0 for machine in outcome.cluster.correct)


@pytest.mark.rule("R3")
def test_a_batch_with_a_forged_request_is_refused_by_every_correct_replica(run):
    outcome = run({0: "forge-request"})
    for machine in outcome.cluster.correct:
        assert machine.node.counters["bad-signature"] > 0


def test_a_forged_request_is_the_same_for_all_so_that_only_its_signature_betrays_it():
    cores = Cores()
    sent = []
    wire = Recorder(lambda to, packet: sent.append((to, packet)))
    proposal = cores.proposal(cores.content(cores.request()), seq=1)
    honest = Proposal(proposal.pre_prepare.envelope, proposal.content.batch)
    wrap("forge-request", cores.contexts[0], wire, Counter()).broadcast(honest)
    assert [to for to, _ in sent] == [1, 2, 3]
    assert len({packet for _, packet in sent}) == 1
    assert len(sent[0][1].batch.requests) == 2


@pytest.mark.rule("R7")
def test_nothing_with_a_corrupt_signature_is_believed(run):
    outcome = run({3: "bad-signature"})
    assert outcome.rejected("bad-signature") > 0
    for machine in outcome.cluster.correct:
        assert machine.node.core.retransmission.status_of(3) is None
