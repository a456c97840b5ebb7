"""Runs scenarios: trouble first, then healing; then everything must be done, and be right."""

import traceback
from collections.abc import Callable

from msgspec import Struct

from pbft.apps.kv_codec import MalformedResult
from pbft.core.invariants import InvariantBroken
from pbft.core.voting import BrokenPromise
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.history import Operation
from pbft.simulation.linearizability import Verdict, check
from pbft.simulation.proofs import ProofChecker
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
    counts: dict[str, int]  # of what happened to correct replicas


def run(scenario: Scenario) -> Outcome:
    """Run one scenario to its end."""
    cluster = SimulatedCluster(scenario)
    failures = judge(cluster, _drive)
    return Outcome(
        seed=scenario.seed,
        trace_hash=cluster.world.trace_hash,
        failures=failures,
        operations=sum(len(client.history) for client in cluster.clients),
        batches=cluster.ledger.last,
        highest_view=cluster.highest_view,
        messages=cluster.network.delivered,
        virtual_seconds=cluster.world.now / SECOND,
        counts=dict(cluster.witness.counts),
    )


def judge(
    cluster: SimulatedCluster, drive: Callable[[SimulatedCluster], list[str]]
) -> tuple[str, ...]:
    """What the checkers have to say of `cluster` while, and after, `drive` runs it to its end."""
    try:
        failures = drive(cluster)
    except (InvariantBroken, BrokenPromise) as broken:
        failures = [f"invariant: {broken}"]
    except MalformedResult:
        failures = ["results: a client was told what no application says"]
    except Exception as error:  # whatever it is, it belongs to this seed
        failures = [f"crash: {_last_lines(error)}"]
    said = [*cluster.ledger.failures, *cluster.witness.promises.failures]
    said += [failure for client in cluster.clients for failure in client.failures]
    if not failures and not said:
        failures = _check_history([entry for client in cluster.clients for entry in client.history])
    return (*said, *failures)


def _drive(cluster: SimulatedCluster) -> list[str]:
    world, scenario = cluster.world, cluster.scenario
    cluster.start()
    Trouble(cluster)
    world.run_until(scenario.trouble)
    view = cluster.highest_view
    for client in cluster.clients:
        client.finish()
    world.run_until(world.now + scenario.patience, lambda: cluster.settled)
    if not cluster.settled:
        return unfinished(cluster)
    cluster.witness.counts["healing-ms"] = (world.now - scenario.trouble) // 1000
    if cluster.highest_view > view + scenario.most_views:
        return [f"liveness: from view {view} to {cluster.highest_view} after everything was well"]
    for client in cluster.clients:
        client.read_all()
    world.run_until(world.now + scenario.patience, lambda: cluster.settled)
    if not cluster.settled:
        return ["liveness: the final reads were not answered", *unfinished(cluster)]
    return check_end(cluster)


def check_end(cluster: SimulatedCluster) -> list[str]:
    """What only shows once everything is done."""
    cluster.ledger.check_end(cluster.correct)
    return ProofChecker(cluster.config, cluster.verifier).failures(cluster.correct)


def unfinished(cluster: SimulatedCluster) -> list[str]:
    """Who is not done, where everybody should be."""
    waiting = [client.endpoint for client in cluster.clients if not client.done]
    failures = [f"liveness: client {endpoint} still waits" for endpoint in waiting]
    for machine in cluster.correct:
        if machine.halted:
            failures.append(f"liveness: {machine.endpoint} has stopped: {machine.halted}")
        elif machine.node:
            views = machine.node.core.views
            where = f"{'in' if views.active else 'on its way to'} view {views.view}"
            done = f"{machine.node.store.seq} of {cluster.ledger.last}"
            failures.append(f"liveness: {machine.endpoint} has executed {done} and is {where}")
    return failures


def _last_lines(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {error} in {where}"


def _check_history(history: list[Operation]) -> list[str]:
    verdict = check(history)
    return [] if verdict.verdict is Verdict.LINEARIZABLE else [f"linearizability: {verdict}"]
