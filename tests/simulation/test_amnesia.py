"""Disks are emptied, and images of an earlier day put back, in whole clusters (R41)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from pbft.core.amnesia import Amnesia
from pbft.messages import Recovery
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.machine import Machine
from pbft.simulation.runner import run
from pbft.simulation.scenario import SECOND, Scenario, stress_of

CALM = Scenario(seed=1, clients=1, operations=30)


def calm(clients: int = 1) -> SimulatedCluster:
    """Four replicas that have executed a client's operations, and rest."""
    cluster = SimulatedCluster(replace(CALM, clients=clients))
    cluster.start()
    run_until(cluster, lambda: cluster.settled and all(c.done for c in cluster.clients))
    assert cluster.ledger.last > cluster.scenario.parameters.checkpoint_interval
    return cluster


def run_until(cluster: SimulatedCluster, condition: Callable[[], bool]) -> None:
    cluster.world.run_until(cluster.world.now + 20 * SECOND, condition)
    assert condition()


def wipe(*machines: Machine) -> None:
    for machine in machines:
        if machine.alive:
            machine.crash()
        machine.replace_disks(None)


def back(cluster: SimulatedCluster) -> bool:
    """All take part: none may have forgotten anything that matters, and all are equally far."""
    nodes = [machine.node for machine in cluster.machines if machine.node]
    voting = all(not node.core.gate.silent for node in nodes)
    return len(nodes) == 4 and voting and cluster.settled


@pytest.mark.rule("R41")
@pytest.mark.parametrize("wiped", [0, 3])
def test_a_wiped_replica_of_an_idle_cluster_comes_back(wiped: int) -> None:
    """The primary too: the others must see that nothing gets it there."""
    cluster = calm()
    wipe(cluster.machines[wiped])
    cluster.machines[wiped].start()
    assert not back(cluster)
    run_until(cluster, lambda: back(cluster))
    assert cluster.witness.counts["memory-lost"] == 1
    assert cluster.highest_view >= 1
    cluster.ledger.check_end(cluster.machines)
    assert not cluster.ledger.failures
    assert not cluster.witness.promises.failures


@pytest.mark.rule("R23")
@pytest.mark.rule("R41")
@pytest.mark.parametrize("wiped", [0, 1])
def test_all_are_killed_and_one_is_wiped_and_no_client_is_there(wiped: int) -> None:
    cluster = calm()
    for machine in cluster.machines:
        machine.crash()
    wipe(cluster.machines[wiped])
    for machine in cluster.machines:
        machine.start()
    run_until(cluster, lambda: back(cluster))
    assert cluster.witness.counts["memory-lost"] == 1


@pytest.mark.rule("R41")
def test_an_image_of_an_earlier_day_is_noticed_and_recovers() -> None:
    cluster = calm()
    machine = cluster.machines[2]
    machine.crash()
    image = machine.image()
    machine.start()
    run_until(cluster, lambda: back(cluster))
    machine.crash()
    machine.replace_disks(image)
    machine.start()
    run_until(cluster, lambda: back(cluster))
    assert cluster.witness.counts["memory-lost"] == 1


@pytest.mark.rule("R25")
@pytest.mark.rule("R41")
def test_a_liar_that_has_forgotten_nothing_and_tells_the_primary_only_blocks_nothing() -> None:
    cluster = calm()
    liar = cluster.machines[3].node
    assert liar
    before, view = cluster.ledger.last, cluster.highest_view
    goal = before + cluster.scenario.parameters.window
    message = liar.core.incarnations._context.sign(Recovery(3, 2**40, goal, view))
    cluster.machines[3]._wire.send(0, message.envelope)
    run_until(cluster, lambda: cluster.settled and cluster.ledger.last > goal)
    assert cluster.highest_view == view


SAFETY = ("agreement", "durability", "invariant", "promise")


@pytest.mark.rule("R41")
def test_voting_at_once_breaks_safety() -> None:
    """Then one replica after the other forgets what it has promised, each alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Amnesia, "over", lambda self, *_: self.goal is not None)
        outcomes = (run(stress_of(seed, "amnesia")) for seed in range(1, 200))
        broken = next(o for o in outcomes if any(f.startswith(SAFETY) for f in o.failures))
    assert not run(stress_of(broken.seed, "amnesia")).failures


@pytest.mark.rule("R41")
@pytest.mark.parametrize("replicas", [4, 7])
def test_every_check_holds_while_disks_forget(replicas: int) -> None:
    back = 0
    for seed in range(1, 5):
        outcome = run(replace(stress_of(seed, "amnesia"), replicas=replicas, operations=20))
        assert not outcome.failures, (seed, outcome.failures)
        back += outcome.counts.get("memory-no-longer-needed", 0)
    assert back >= 3, "they recovered while it was going on"
