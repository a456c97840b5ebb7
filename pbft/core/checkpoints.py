"""Checkpoints: votes on the state's digest, stability, and what may be forgotten (O4.3).

A checkpoint is *stable* with q matching votes (R21): its proof lets everybody discard what lies
below. w matching votes already certify that the state is right, since one of them is a correct
replica's: that is enough to fetch it (T 6.2.2), never enough to discard anything.
"""

from msgspec import Struct

from pbft.codec import decode_body
from pbft.core.certificates import Certified
from pbft.core.context import Context
from pbft.core.output import Outbox
from pbft.core.quorum import VoteSet
from pbft.core.records import stable_write
from pbft.core.voting import VotingGate
from pbft.messages import Checkpoint, Proof, StateSummary, Verified

PROOFS_KEPT = 4
"""Stable checkpoints whose proofs are kept: the states of older ones are no longer served."""


class CheckpointStable(Struct, frozen=True):
    """q replicas vouch for the state after `seq`."""

    seq: int


class StateDiverged(Struct, frozen=True):
    """This replica's own state after `seq` is not the certified one (R22)."""

    certified: Certified


class NoQuorumPossible(Struct, frozen=True):
    """Whatever the missing votes say, no digest can reach q for `seq` any more (R22)."""

    seq: int


Fact = CheckpointStable | StateDiverged | NoQuorumPossible


class Checkpoints:
    """Votes per sequence number, the stable checkpoint with its proof."""

    def __init__(self, context: Context, gate: VotingGate, outbox: Outbox) -> None:
        self._context = context
        self._quorum = context.quorum
        self._interval = context.parameters.checkpoint_interval
        self._reach = context.parameters.window + self._interval
        self._gate = gate
        self._outbox = outbox
        self.stable_seq = 0
        self.stable_digest = bytes(32)
        self.stable_proof: Proof = ()
        self.proofs: dict[int, Proof] = {}  # of the last stable checkpoints, by sequence number
        self._own: dict[int, bytes] = {}
        self._votes: dict[int, VoteSet[Checkpoint]] = {}
        self._far: dict[int, Verified[Checkpoint]] = {}
        self._hopeless: dict[int, None] = {}

    def own_state(self, summary: StateSummary, digest: bytes) -> list[Fact]:
        """This replica's state has reached a checkpoint."""
        self._own[summary.seq] = digest
        if summary.seq == self.stable_seq and digest != self.stable_digest:
            return [StateDiverged(self.certified_stable())]
        self.vote()
        return []

    def vote(self) -> None:
        """Vote on every state reached above the stable one, if this replica may vote now.

        Votes at or below it are forgotten, so none is cast there again (R46).
        """
        for seq, digest in sorted(self._own.items()):
            if seq > self.stable_seq:
                self._gate.checkpoint(seq, digest)

    def on_vote(self, vote: Verified[Checkpoint]) -> list[Fact]:
        """Count a CHECKPOINT."""
        body = vote.body
        if body.seq <= self.stable_seq:
            return []
        if body.seq % self._interval:
            self._outbox.reject("checkpoint-off-the-grid", body.replica)
            return []
        self._remember_far(vote)
        if body.seq > self.stable_seq + self._reach:
            return self._judge_far()
        votes = self._votes.setdefault(body.seq, VoteSet())
        if earlier := votes.add(body.replica, body.digest, vote):
            self._outbox.accuse("double-checkpoint", body.replica, earlier.envelope, vote.envelope)
            return []
        return self._judge(body.seq, body.digest)

    def _remember_far(self, vote: Verified[Checkpoint]) -> None:
        known = self._far.get(vote.body.replica)
        if known is None or known.body.seq < vote.body.seq:
            self._far[vote.body.replica] = vote

    def _judge(self, seq: int, digest: bytes) -> list[Fact]:
        votes = self._votes[seq]
        if votes.count(digest) >= self._quorum.q:
            proof = tuple(vote.envelope for vote in votes.matching(digest)[: self._quorum.q])
            return self._stabilise(seq, digest, proof)
        missing = self._quorum.n - len(votes)
        if max(votes.tally().values()) + missing < self._quorum.q and seq not in self._hopeless:
            self._hopeless[seq] = None
            return [NoQuorumPossible(seq)]
        return []

    def _judge_far(self) -> list[Fact]:
        """Votes beyond reach: one is kept per replica, and q that match are a proof too."""
        for vote in self._far.values():
            body = vote.body
            same = [v for v in self._far.values() if _same(v.body, body)]
            if len(same) >= self._quorum.q:
                proof = tuple(v.envelope for v in same[: self._quorum.q])
                return self._stabilise(body.seq, body.digest, proof)
        return []

    def learn(self, proof: Proof) -> list[Fact]:
        """Take in a verified stable proof from elsewhere."""
        if not proof:
            return []
        body = decode_body(proof[0].body)
        assert isinstance(body, Checkpoint)
        if body.seq <= self.stable_seq:
            return []
        return self._stabilise(body.seq, body.digest, proof)

    def _stabilise(self, seq: int, digest: bytes, proof: Proof) -> list[Fact]:
        self.stable_seq, self.stable_digest, self.stable_proof = seq, digest, proof
        self._keep(seq, proof)
        self._outbox.persist.append(stable_write(proof))
        self._gate.forget_checkpoints(seq)
        own = self._own.get(seq)
        for table in (self._own, self._votes, self._hopeless):
            for old in [old for old in table if old < seq]:
                del table[old]
        facts: list[Fact] = [CheckpointStable(seq)]
        if own is not None and own != digest:
            facts.append(StateDiverged(self.certified_stable()))
        return facts

    def _keep(self, seq: int, proof: Proof) -> None:
        self.proofs[seq] = proof
        if len(self.proofs) > PROOFS_KEPT:
            del self.proofs[min(self.proofs)]

    @property
    def own_digest(self) -> bytes:
        """What this replica itself has computed for the stable checkpoint; empty if it has not."""
        return self._own.get(self.stable_seq, b"")

    def certified_stable(self) -> Certified:
        """The stable checkpoint, as something to fetch."""
        signers = tuple(_replica(envelope.body) for envelope in self.stable_proof)
        return Certified(self.stable_seq, self.stable_digest, signers)

    def best_certified(self) -> Certified | None:
        """The highest state that w replicas vouch for, this one's own vote not counted."""
        best = self.certified_stable() if self.stable_seq else None
        others = {r: vote for r, vote in sorted(self._far.items()) if r != self._context.id}
        for vote in others.values():
            signers = tuple(r for r, v in others.items() if _same(v.body, vote.body))
            higher = best is None or vote.body.seq > best.seq
            if len(signers) >= self._quorum.w and higher:
                best = Certified(vote.body.seq, vote.body.digest, signers)
        for seq, votes in self._votes.items():
            for digest in votes.tally():
                voters = (vote.body.replica for vote in votes.matching(digest))
                signers = tuple(voter for voter in voters if voter != self._context.id)
                if len(signers) >= self._quorum.w and (best is None or seq > best.seq):
                    best = Certified(seq, digest, signers)
        return best

    def repaired(self, seq: int, digest: bytes) -> None:
        """The certified state after `seq` is in place here."""
        self._own = {seq: digest}

    def restore(self, proof: Proof, own: dict[int, Verified[Checkpoint]]) -> None:
        """Take up what was found on disk."""
        if proof:
            body = decode_body(proof[0].body)
            assert isinstance(body, Checkpoint)
            self.stable_seq, self.stable_digest = body.seq, body.digest
            self.stable_proof = proof
            self._keep(body.seq, proof)
        for seq, vote in sorted(own.items()):
            if seq > self.stable_seq:
                self._votes.setdefault(seq, VoteSet()).add(
                    vote.body.replica, vote.body.digest, vote
                )


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.seq, one.digest) == (other.seq, other.digest)


def _replica(raw: bytes) -> int:
    body = decode_body(raw)
    assert isinstance(body, Checkpoint)
    return body.replica
