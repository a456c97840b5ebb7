"""Proofs made of other replicas' signed messages: is their shape right, and who signed what?

These functions look at structure and counts only, which is cheap; whoever received the proof
checks its signatures afterwards, all of them (`signatures_in`). A proof that passes both
convinces anybody.
"""

from collections.abc import Iterator
from typing import TypeVar

from msgspec import Struct

from pbft.codec import MalformedMessage, decode_body
from pbft.core.quorum import Quorum
from pbft.messages import (
    AnyBody,
    Body,
    Checkpoint,
    Commit,
    Envelope,
    Incarnation,
    IncarnationSeen,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proof,
    ViewChange,
)

B = TypeVar("B", bound=Body)


class InvalidCertificate(Exception):
    """A proof proves nothing; the text says why in a few words."""


class Prepared(Struct, frozen=True):
    """What a prepared certificate shows; `holders` have the batch's bodies (R3)."""

    view: int
    seq: int
    digest: bytes
    holders: tuple[int, ...]


class Certified(Struct, frozen=True):
    """A state that enough replicas vouch for; `sources` have signed for it."""

    seq: int
    digest: bytes
    sources: tuple[int, ...]


def opened(envelope: Envelope, kind: type[B]) -> B:
    """The body inside, which must be of `kind`. Raises InvalidCertificate."""
    try:
        body = decode_body(envelope.body)
    except MalformedMessage as error:
        raise InvalidCertificate(str(error)) from None
    if not isinstance(body, kind):
        raise InvalidCertificate("a message of another type inside a certificate")
    return body


def _votes(quorum: Quorum, proof: Proof, kind: type[B]) -> list[B]:
    """The bodies of the votes; counted before any is decoded."""
    if len(proof) > quorum.n:
        raise InvalidCertificate("more votes than replicas")
    return [opened(envelope, kind) for envelope in proof]


def _distinct(quorum: Quorum, replicas: list[int], least: int) -> None:
    if len(replicas) < least:
        raise InvalidCertificate("too few signers")
    if len(set(replicas)) != len(replicas) or max(replicas) >= quorum.n:
        raise InvalidCertificate("repeated or unknown signers")


def check_checkpoints(quorum: Quorum, proof: Proof, least: int) -> Checkpoint:
    """At least `least` matching CHECKPOINTs of distinct replicas; one of them is returned."""
    votes = _votes(quorum, proof, Checkpoint)
    _distinct(quorum, [vote.replica for vote in votes], least)
    if any((vote.seq, vote.digest) != (votes[0].seq, votes[0].digest) for vote in votes):
        raise InvalidCertificate("checkpoints that do not match")
    return votes[0]


def check_commits(quorum: Quorum, proof: Proof) -> Commit:
    """A commit certificate: q matching COMMITs (R5, R23); one of them is returned."""
    votes = _votes(quorum, proof, Commit)
    _distinct(quorum, [vote.replica for vote in votes], quorum.q)
    first = votes[0]
    if any((v.view, v.seq, v.digest) != (first.view, first.seq, first.digest) for v in votes):
        raise InvalidCertificate("commits that do not match")
    return first


def check_prepared(quorum: Quorum, proof: PreparedProof) -> Prepared:
    """A prepared certificate: PRE-PREPARE and q-1 PREPAREs of distinct backups (R4)."""
    proposal = opened(proof.pre_prepare, PrePrepare)
    key = (proposal.view, proposal.seq, proposal.digest)
    primary = quorum.primary(proposal.view)
    votes = _votes(quorum, proof.prepares, Prepare)
    holders = [proposal.replica, *(vote.replica for vote in votes)]
    if proposal.replica != primary:
        raise InvalidCertificate("a pre-prepare that is not the primary's")
    if any((vote.view, vote.seq, vote.digest) != key for vote in votes):
        raise InvalidCertificate("prepares that do not match")
    _distinct(quorum, holders, quorum.q)
    return Prepared(*key, holders=tuple(holders))


def check_view_change(quorum: Quorum, window: int, body: ViewChange) -> tuple[Prepared, ...]:
    """The prepared certificates of a well-formed VIEW-CHANGE, in order (R28)."""
    if body.view == 0 or body.replica >= quorum.n:
        raise InvalidCertificate("a view-change for view 0 or of an unknown replica")
    if len(body.prepared) > window:
        raise InvalidCertificate("more prepared certificates than the window holds")
    _check_stable(quorum, body)
    prepared = tuple(check_prepared(quorum, proof) for proof in body.prepared)
    seqs = [certificate.seq for certificate in prepared]
    if seqs != sorted(set(seqs)):
        raise InvalidCertificate("prepared certificates out of order or repeated")
    if seqs and not body.stable_seq < seqs[0] <= seqs[-1] <= body.stable_seq + window:
        raise InvalidCertificate("a prepared certificate outside of the window")
    if any(certificate.view >= body.view for certificate in prepared):
        raise InvalidCertificate("a prepared certificate of a later view")
    return prepared


def _check_stable(quorum: Quorum, body: ViewChange) -> None:
    if body.stable_seq == 0:
        if body.stable_proof or body.stable_digest != bytes(32):
            raise InvalidCertificate("a proof or a digest for the initial state")
        return
    stable = check_checkpoints(quorum, body.stable_proof, quorum.q)
    if (stable.seq, stable.digest) != (body.stable_seq, body.stable_digest):
        raise InvalidCertificate("a stable checkpoint that its proof does not show")


def check_new_view_shape(quorum: Quorum, window: int, body: NewView) -> tuple[ViewChange, ...]:
    """The VIEW-CHANGEs of a well-formed NEW-VIEW: q, distinct, for exactly its view (R31)."""
    if body.replica != quorum.primary(body.view):
        raise InvalidCertificate("a new-view that is not its primary's")
    if len(body.pre_prepares) > window:
        raise InvalidCertificate("more pre-prepares than the window holds")
    changes = tuple(_votes(quorum, body.view_changes, ViewChange))
    _distinct(quorum, [change.replica for change in changes], quorum.q)
    if any(change.view != body.view for change in changes):
        raise InvalidCertificate("a view-change for another view")
    for change in changes:
        check_view_change(quorum, window, change)
    return changes


def check_starts(quorum: Quorum, body: IncarnationSeen) -> None:
    """That it reminds of at most one start of each replica, and invents none (R41)."""
    if len(body.starts) > quorum.n:
        raise InvalidCertificate("more starts than replicas")
    starts = [opened(envelope, Incarnation) for envelope in body.starts]
    numbers = {start.replica: start.number for start in starts}
    if len(numbers) != len(starts):
        raise InvalidCertificate("two starts of one replica")
    if numbers.get(body.about, 0) != body.highest:
        raise InvalidCertificate("a start that is not shown in the replica's own words")
    if not all(start.begun for start in starts):
        raise InvalidCertificate("a start that has not begun")


def signatures_in(body: AnyBody) -> Iterator[tuple[int, Envelope]]:
    """Every (signer, envelope) that `body` carries, at any depth. The shape has been checked."""
    if isinstance(body, ViewChange):
        yield from _signers(body.stable_proof, Checkpoint)
        for proof in body.prepared:
            yield from _signers((proof.pre_prepare,), PrePrepare)
            yield from _signers(proof.prepares, Prepare)
    elif isinstance(body, NewView):
        for envelope in body.view_changes:
            change = opened(envelope, ViewChange)
            yield change.replica, envelope
            yield from signatures_in(change)
        yield from _signers(body.pre_prepares, PrePrepare)
    elif isinstance(body, IncarnationSeen):
        yield from _signers(body.starts, Incarnation)


def _signers(
    envelopes: Proof,
    kind: type[PrePrepare] | type[Prepare] | type[Checkpoint] | type[Incarnation],
) -> Iterator[tuple[int, Envelope]]:
    for envelope in envelopes:
        yield opened(envelope, kind).replica, envelope
