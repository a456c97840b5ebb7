"""Runs scenarios: trouble first, then healing; then everything must be done, and be right."""

from msgspec import Struct

from pbft.core.invariants import InvariantBroken
from pbft.core.voting import BrokenPromise
from pbft.simulation.checkers import check_equal_states
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.history import Operation
from pbft.simulation.linearizability import Verdict, check
from pbft.simulation.scenario import SECOND, Scenario
from pbft.simulation.trouble import Trouble


class Outcome(Struct, frozen=True):
    """What came of a run; it holds if there are no `failures`."""

    seed: int
    trace_hash: str
    failures: tuple[str, ...]
    operations: int
    batches: int
    highest_view: int
    messages: int
    virtual_seconds: float


def run(scenario: Scenario) -> Outcome:
    """Run one scenario to its end."""
    cluster = SimulatedCluster(scenario)
    try:
        failures = _drive(cluster)
    except (InvariantBroken, BrokenPromise) as broken:
        failures = [f"invariant: {broken}"]
    history = [operation for client in cluster.clients for operation in client.history]
    if not failures:
        failures = [*cluster.ledger.failures, *_check_history(history)]
    nodes = [machine.node for machine in cluster.correct if machine.node]
    return Outcome(
        seed=scenario.seed,
        trace_hash=cluster.world.trace_hash,
        failures=tuple(failures),
        operations=len(history),
        batches=cluster.ledger.last,
        highest_view=max((node.core.views.view for node in nodes), default=0),
        messages=cluster.network.delivered,
        virtual_seconds=cluster.world.now / SECOND,
    )


def _drive(cluster: SimulatedCluster) -> list[str]:
    world, scenario = cluster.world, cluster.scenario
    cluster.start()
    Trouble(world, cluster.network, cluster.machines, scenario.trouble)
    world.run_until(scenario.trouble + 2 * SECOND)
    world.run_until(world.now + scenario.patience, lambda: cluster.settled)
    if not cluster.settled:
        return [*cluster.ledger.failures, *_unfinished(cluster)]
    for client in cluster.clients:
        client.read_all()
    world.run_until(world.now + scenario.patience, lambda: cluster.settled)
    if not cluster.settled:
        return ["liveness: the final reads were not answered", *_unfinished(cluster)]
    return check_equal_states(cluster.machines)


def _unfinished(cluster: SimulatedCluster) -> list[str]:
    waiting = [client.endpoint for client in cluster.clients if not client.done]
    failures = [f"liveness: client {endpoint} still waits" for endpoint in waiting]
    for machine in cluster.correct:
        if machine.halted:
            failures.append(f"liveness: {machine.endpoint} has stopped: {machine.halted}")
        elif machine.node and machine.node.store.seq < cluster.ledger.last:
            behind = f"{machine.node.store.seq} of {cluster.ledger.last}"
            failures.append(f"liveness: {machine.endpoint} is behind at {behind}")
    return failures


def _check_history(history: list[Operation]) -> list[str]:
    verdict = check(history)
    return [] if verdict.verdict is Verdict.LINEARIZABLE else [f"linearizability: {verdict}"]
