"""One simulated cluster in calm weather, so that only the faulty replicas do harm."""

import pytest

from pbft.apps.kv_codec import MalformedResult
from pbft.codec import SIGNING_DOMAIN, decode_body, signing_input
from pbft.core.invariants import InvariantBroken
from pbft.core.voting import BrokenPromise
from pbft.simulation.checkers import check_equal_states
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.linearizability import Verdict, check
from pbft.simulation.scenario import SECOND, Scenario

PATIENCE = 30 * SECOND


class Run:
    """What came of one run: the checkers' complaints, and who counted what."""

    def __init__(self, scenario):
        self.cluster = SimulatedCluster(scenario)
        self.verifier = self.cluster.machines[0]._verifier
        self.failures = self._drive()

    def _drive(self):
        cluster = self.cluster
        try:
            cluster.start()
            cluster.world.run_until(PATIENCE, lambda: cluster.settled)
        except (InvariantBroken, BrokenPromise) as broken:
            return [*cluster.ledger.failures, f"invariant: {broken}"]
        except MalformedResult:
            return ["results: a client was told what no application says"]
        failures = [*cluster.ledger.failures, *check_equal_states(cluster.machines)]
        failures += [f"proofs: {m.endpoint} holds one that convinces nobody" for m in self._duped()]
        if not cluster.settled:
            failures.append("liveness: not everything is done")
        history = [operation for client in cluster.clients for operation in client.history]
        if check(history).verdict is not Verdict.LINEARIZABLE:
            failures.append("linearizability: the clients saw what cannot be")
        return failures

    def _duped(self):
        """The correct machines with a certificate in which some signature is not its signer's."""
        return [machine for machine in self.cluster.correct if not all(self._proved(machine.node))]

    def _proved(self, node):
        core, config = node.core, self.cluster.config
        proofs = [core.checkpoints.stable_proof]
        for slot in core.log.above(0):
            proofs.append(slot.certificate)
            if slot.proof is not None:
                proofs.append((slot.proof.pre_prepare, *slot.proof.prepares))
        for envelope in (envelope for proof in proofs for envelope in proof):
            key = config.replicas[decode_body(envelope.body).replica].public_key
            message = signing_input(config.cluster_id, envelope.body)
            yield self.verifier.verify(key, SIGNING_DOMAIN, message, envelope.signature)

    def counted(self, replica, reason):
        """How often one replica's node counted `reason`."""
        return self.cluster.machines[replica].node.counters[reason]

    def rejected(self, reason):
        """How often the correct replicas counted `reason`."""
        return sum(machine.node.counters[reason] for machine in self.cluster.correct)


@pytest.fixture
def run():
    """Run `faulty` (replica: mode) among `replicas`."""

    def run_scenario(faulty, replicas=4, seed=1):
        return Run(Scenario(seed, replicas=replicas, faulty=tuple(faulty.items()), operations=10))

    return run_scenario
