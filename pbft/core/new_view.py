"""What a new view must propose: one pure function of q VIEW-CHANGEs (O4.4).

The new primary uses it to build its NEW-VIEW, and every backup to check it (R32).
"""

from collections.abc import Sequence

from msgspec import Struct

from pbft.codec import NULL_DIGEST
from pbft.core.certificates import InvalidCertificate, Prepared, check_prepared, opened
from pbft.core.quorum import Quorum
from pbft.messages import NewView, PrePrepare, Proof, ViewChange


class Proposal(Struct, frozen=True):
    """One sequence number that the view proposes again; `holders` have its bodies (R34)."""

    seq: int
    digest: bytes
    holders: tuple[int, ...]


class Plan(Struct, frozen=True):
    """min-s with its proof, max-s, and what lies between (R32, R33)."""

    min_seq: int
    stable_proof: Proof
    max_seq: int
    proposals: tuple[Proposal, ...]


def compute(quorum: Quorum, changes: Sequence[ViewChange]) -> Plan:
    """The plan that follows from well-formed VIEW-CHANGEs."""
    base = max(changes, key=lambda change: (change.stable_seq, -change.replica))
    best: dict[int, Prepared] = {}
    for change in changes:
        for proof in change.prepared:
            found = check_prepared(quorum, proof)
            earlier = best.get(found.seq)
            if found.seq > base.stable_seq and (earlier is None or earlier.view < found.view):
                best[found.seq] = found
    max_seq = max(best, default=base.stable_seq)
    proposals = tuple(
        Proposal(seq, best[seq].digest, best[seq].holders)
        if seq in best
        else Proposal(seq, NULL_DIGEST, ())
        for seq in range(base.stable_seq + 1, max_seq + 1)
    )
    return Plan(base.stable_seq, base.stable_proof, max_seq, proposals)


def check(quorum: Quorum, body: NewView) -> Plan:
    """The plan of a well-formed NEW-VIEW, if its PRE-PREPAREs are just what follows from it.

    Raises InvalidCertificate on any difference (R32).
    """
    plan = compute(quorum, [opened(envelope, ViewChange) for envelope in body.view_changes])
    offered = [opened(envelope, PrePrepare) for envelope in body.pre_prepares]
    expected = [
        PrePrepare(body.replica, body.view, proposal.seq, proposal.digest)
        for proposal in plan.proposals
    ]
    if offered != expected:
        raise InvalidCertificate("pre-prepares that do not follow from the view-changes")
    return plan
