"""What correct replicas hold at the end must convince anybody, and accuse nobody correct.

Thresholds and signatures are worked out here anew: a node that counts wrongly cannot hide it.
"""

from collections.abc import Iterator

from pbft.codec import SIGNING_DOMAIN, decode_body, signing_input
from pbft.config import ClusterConfig
from pbft.core.replica import Replica
from pbft.messages import Proof
from pbft.node.ports import Verifier
from pbft.simulation.machine import Machine


class ProofChecker:
    """Looks at stable checkpoints, certificates and evidence."""

    def __init__(self, config: ClusterConfig, verifier: Verifier) -> None:
        n = len(config.replicas)
        faulty = (n - 1) // 3
        self._config = config
        self._verifier = verifier
        self._quorum = next(q for q in range(n + 1) if 2 * q - n >= faulty + 1)

    def failures(self, machines: list[Machine]) -> list[str]:
        """Of the correct `machines`, all of them."""
        correct = {machine.replica for machine in machines}
        found = []
        for machine in machines:
            if machine.node is not None:
                for what in self._unconvincing(machine.node.core):
                    found.append(f"proofs: {machine.endpoint} holds no proof of {what}")
            for culprit in machine.accused():
                if culprit in correct:
                    found.append(f"evidence: {machine.endpoint} convicts correct {culprit} (R46)")
        return found

    def _unconvincing(self, core: Replica) -> Iterator[str]:
        stable = core.checkpoints
        if stable.stable_seq and not self._convinces(stable.stable_proof):
            yield f"the stable checkpoint {stable.stable_seq}"
        for slot in core.log.above(0):
            if slot.certificate and not self._convinces(slot.certificate):
                yield f"the commit of {slot.seq}"
            proof = slot.proof
            if proof and not self._convinces((proof.pre_prepare, *proof.prepares)):
                yield f"the preparation of {slot.seq}"

    def _convinces(self, proof: Proof) -> bool:
        signers: set[int] = set()
        for envelope in proof:
            signer: int = decode_body(envelope.body).replica  # type: ignore[union-attr]
            key = self._config.replicas[signer].public_key
            message = signing_input(self._config.cluster_id, envelope.body)
            if self._verifier.verify(key, SIGNING_DOMAIN, message, envelope.signature):
                signers.add(signer)
        return len(signers) >= self._quorum
