"""Proofs that prove nothing, and proofs that are bombs: shape and counts come before signatures.

`Target.refuse` asserts that no signature was checked.
"""

import tracemalloc

import pytest
from msgspec.structs import replace
from target import START, D, Target, frame

from pbft.codec import encode
from pbft.config import Parameters
from pbft.messages import (
    MAX_REPLICAS,
    Batch,
    Checkpoint,
    CheckpointProof,
    Commit,
    CommittedBatch,
    Envelope,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    ViewChange,
)

OTHER = b"e" * 32
NULL = Batch(0, ())
TARGET = Target()
ALL = range(MAX_REPLICAS)

TOO_FEW = "certificate: too few signers"
STRANGERS = "certificate: repeated or unknown signers"
TOO_MANY = "certificate: more votes than replicas"
WRONG_TYPE = "certificate: a message of another type inside a certificate"


def unsigned(body):
    """What its signature would be is looked at too late to matter here."""
    return Envelope(encode(body), bytes(64))


def checkpoints(*replicas, seq=4, digest=D):
    return tuple(unsigned(Checkpoint(i, seq, digest)) for i in replicas)


def prepared(seq=5, backups=(1, 2), view=0, primary=0, digest=D):
    votes = tuple(unsigned(Prepare(i, view, seq, D)) for i in backups)
    return PreparedProof(unsigned(PrePrepare(primary, view, seq, digest)), votes)


CHANGE = ViewChange(2, 2, 4, D, checkpoints(0, 1, 2), (prepared(),))
CHANGES = tuple(unsigned(replace(CHANGE, replica=i)) for i in (0, 2, 3))
OPENING = NewView(2, 2, CHANGES, (unsigned(PrePrepare(2, 2, 5, D)),))

VIEW_CHANGES = {
    "view 0": (
        replace(CHANGE, view=0),
        "view-change-not-needed",
    ),
    "no proof": (replace(CHANGE, stable_proof=()), TOO_FEW),
    "q-1 checkpoints": (replace(CHANGE, stable_proof=checkpoints(0, 1)), TOO_FEW),
    "a repeated signer": (replace(CHANGE, stable_proof=checkpoints(0, 1, 1)), STRANGERS),
    "an unknown signer": (replace(CHANGE, stable_proof=checkpoints(0, 1, 4)), STRANGERS),
    "n+1 signers": (replace(CHANGE, stable_proof=checkpoints(0, 1, 2, 3, 4)), TOO_MANY),
    "128 signers": (replace(CHANGE, stable_proof=checkpoints(*ALL)), TOO_MANY),
    "another digest": (
        replace(CHANGE, stable_digest=OTHER),
        "certificate: a stable checkpoint that its proof does not show",
    ),
    "another seq": (
        replace(CHANGE, stable_seq=8),
        "certificate: a stable checkpoint that its proof does not show",
    ),
    "mixed digests": (
        replace(CHANGE, stable_proof=(*checkpoints(0, 1), *checkpoints(2, digest=OTHER))),
        "certificate: checkpoints that do not match",
    ),
    "a proof of the beginning": (
        replace(CHANGE, stable_seq=0),
        "certificate: a proof or a digest for the initial state",
    ),
    "commits as checkpoints": (
        replace(CHANGE, stable_proof=tuple(unsigned(Commit(i, 0, 4, D)) for i in range(3))),
        WRONG_TYPE,
    ),
    "q-2 prepares": (replace(CHANGE, prepared=(prepared(backups=(1,)),)), TOO_FEW),
    "a repeated backup": (replace(CHANGE, prepared=(prepared(backups=(1, 1)),)), STRANGERS),
    "the primary as a backup": (replace(CHANGE, prepared=(prepared(backups=(0, 1)),)), STRANGERS),
    "an unknown backup": (replace(CHANGE, prepared=(prepared(backups=(1, 7)),)), STRANGERS),
    "n backups": (replace(CHANGE, prepared=(prepared(backups=(1, 2, 3, 4)),)), STRANGERS),
    "128 backups": (replace(CHANGE, prepared=(prepared(backups=ALL),)), TOO_MANY),
    "a pre-prepare of a backup": (
        replace(CHANGE, prepared=(prepared(primary=3),)),
        "certificate: a pre-prepare that is not the primary's",
    ),
    "prepares for another batch": (
        replace(CHANGE, prepared=(prepared(digest=OTHER),)),
        "certificate: prepares that do not match",
    ),
    "a certificate of the view itself": (
        replace(CHANGE, prepared=(prepared(view=2, primary=2, backups=(0, 1)),)),
        "certificate: a prepared certificate of a later view",
    ),
    "two certificates for one seq": (
        replace(CHANGE, prepared=(prepared(), prepared())),
        "certificate: prepared certificates out of order or repeated",
    ),
    "certificates out of order": (
        replace(CHANGE, prepared=(prepared(6), prepared(5))),
        "certificate: prepared certificates out of order or repeated",
    ),
    "a certificate at the checkpoint": (
        replace(CHANGE, prepared=(prepared(4),)),
        "certificate: a prepared certificate outside of the window",
    ),
    "a certificate beyond the window": (
        replace(CHANGE, prepared=(prepared(13),)),
        "certificate: a prepared certificate outside of the window",
    ),
    "more certificates than the window": (
        replace(CHANGE, prepared=tuple(map(prepared, range(5, 14)))),
        "certificate: more prepared certificates than the window holds",
    ),
    "a commit as a pre-prepare": (
        replace(CHANGE, prepared=(PreparedProof(unsigned(Commit(0, 0, 5, D)), ()),)),
        WRONG_TYPE,
    ),
    "garbage inside": (
        replace(CHANGE, stable_proof=(Envelope(b"garbage", bytes(64)),) * 3),
        "certificate: not a declared message type",
    ),
    "a view beyond all": (replace(CHANGE, view=2**63 - 1), "view-far-ahead"),
}

NEW_VIEWS = {
    "of a backup": (
        replace(OPENING, replica=3),
        "certificate: a new-view that is not its primary's",
    ),
    "for view 0": (replace(OPENING, replica=0, view=0), "new-view-not-needed"),
    "without view-changes": (replace(OPENING, view_changes=()), TOO_FEW),
    "q-1 view-changes": (replace(OPENING, view_changes=CHANGES[:2]), TOO_FEW),
    "a repeated signer": (replace(OPENING, view_changes=(*CHANGES, CHANGES[0])), STRANGERS),
    "an unknown signer": (
        replace(OPENING, view_changes=(*CHANGES, unsigned(replace(CHANGE, replica=4)))),
        STRANGERS,
    ),
    "128 signers": (
        replace(OPENING, view_changes=tuple(unsigned(replace(CHANGE, replica=i)) for i in ALL)),
        TOO_MANY,
    ),
    "a view-change for another view": (
        replace(OPENING, view_changes=(*CHANGES[:2], unsigned(replace(CHANGE, view=3, replica=3)))),
        "certificate: a view-change for another view",
    ),
    "a bad view-change inside": (
        replace(
            OPENING,
            view_changes=(*CHANGES[:2], unsigned(replace(CHANGE, replica=3, stable_digest=OTHER))),
        ),
        "certificate: a stable checkpoint that its proof does not show",
    ),
    "a new-view inside": (
        replace(OPENING, view_changes=(*CHANGES[:2], unsigned(OPENING))),
        WRONG_TYPE,
    ),
    "more pre-prepares than the window": (
        replace(OPENING, pre_prepares=OPENING.pre_prepares * 9),
        "certificate: more pre-prepares than the window holds",
    ),
    "a view beyond all": (replace(OPENING, view=2**63 - 1), "view-far-ahead"),
}


def commits(*replicas, digest=D):
    return tuple(unsigned(Commit(i, 0, 1, digest)) for i in replicas)


BUNDLES = {
    "no commits": (CommittedBatch((), NULL), TOO_FEW),
    "q-1 commits": (CommittedBatch(commits(0, 1), NULL), TOO_FEW),
    "a repeated commit": (CommittedBatch(commits(0, 1, 1), NULL), STRANGERS),
    "128 commits": (CommittedBatch(commits(*ALL), NULL), TOO_MANY),
    "commits that differ": (
        CommittedBatch((*commits(0, 1), *commits(2, digest=OTHER)), NULL),
        "certificate: commits that do not match",
    ),
    "commits for another batch": (CommittedBatch(commits(0, 1, 2), NULL), "batch-digest-mismatch"),
    "prepares as commits": (
        CommittedBatch(tuple(unsigned(Prepare(i, 0, 1, D)) for i in range(3)), NULL),
        WRONG_TYPE,
    ),
    "no checkpoints": (CheckpointProof(()), TOO_FEW),
    "w-1 checkpoints": (CheckpointProof(checkpoints(0)), TOO_FEW),
    "a repeated checkpoint": (CheckpointProof(checkpoints(0, 0)), STRANGERS),
    "128 checkpoints": (CheckpointProof(checkpoints(*ALL)), TOO_MANY),
    "checkpoints that differ": (
        CheckpointProof((*checkpoints(0), *checkpoints(1, digest=OTHER))),
        "certificate: checkpoints that do not match",
    ),
    "an old checkpoint": (CheckpointProof(checkpoints(0, 1, seq=0)), "checkpoint-not-needed"),
}


def by_name(cases):
    return pytest.mark.parametrize(("sent", "reason"), cases.values(), ids=cases)


@pytest.mark.rule("R28")
@by_name(VIEW_CHANGES)
def test_a_malformed_view_change_costs_no_signature_check(sent, reason):
    assert TARGET.refuse(frame(TARGET.sign(sent)), sent.replica) == reason


@pytest.mark.rule("R31")
@by_name(NEW_VIEWS)
def test_a_malformed_new_view_costs_no_signature_check(sent, reason):
    assert TARGET.refuse(frame(TARGET.sign(sent)), 3) == reason


@pytest.mark.rule("R23")
@by_name(BUNDLES)
def test_a_malformed_bundle_costs_no_signature_check(sent, reason):
    assert TARGET.refuse(frame(sent), 3) == reason


@pytest.mark.rule("R28")
def test_the_examples_are_refused_for_their_signatures_alone():
    """The same shapes with valid signatures are events: nothing else was wrong with them."""
    target = Target()
    change, opening = target.view_change(2), target.new_view()
    bad = replace(target.sign(change), signature=bytes(64))
    assert target.refuse(frame(bad), 2, verifications=1) == "bad-signature"
    forged = replace(change, prepared=(prepared(),))
    assert target.refuse(frame(target.sign(forged)), 2, verifications=5) == "bad-signature"
    assert target.take(frame(target.sign(change)), 2) is not None
    assert target.take(frame(target.sign(opening)), 3) is not None


WINDOW = 512
BIG = Target(parameters=Parameters(window=WINDOW))
BOMBS = {
    "10^5 signatures in more certificates than the window holds": replace(
        CHANGE, prepared=(prepared(backups=ALL),) * (100_000 // MAX_REPLICAS + 1)
    ),
    "66000 signatures in a window of certificates": replace(
        CHANGE,
        prepared=tuple(prepared(seq, backups=ALL) for seq in range(5, 5 + WINDOW)),
    ),
}


@pytest.mark.rule("R43")
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_view_change_with_masses_of_signatures_has_none_of_them_checked(bomb):
    raw = frame(BIG.sign(bomb))
    assert len(raw) > 7_000_000
    tracemalloc.start()
    try:
        assert BIG.refuse(raw, 2).startswith("certificate: ")
        assert tracemalloc.get_traced_memory()[1] < 6 * len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.rule("R43")
def test_of_a_well_shaped_view_change_only_the_first_bad_signature_is_checked():
    """A window of certificates of the right shape: the first forged vote condemns them all."""
    bomb = replace(CHANGE, prepared=tuple(map(prepared, range(5, 5 + WINDOW))))
    assert BIG.refuse(frame(BIG.sign(bomb)), 2, verifications=2) == "bad-signature"


def test_a_batch_of_more_requests_than_allowed_costs_no_signature_check():
    many = BIG.config.parameters.max_batch_requests + 1
    request = BIG.packets()[1].batch.requests[0]
    proposal = replace(BIG.packets()[1], batch=Batch(START.wall, (request,) * many))
    assert BIG.refuse(frame(proposal), 0) == "batch-has-too-many-requests"


def test_a_batch_that_its_digest_does_not_name_costs_no_signature_check():
    assert TARGET.refuse(frame(TARGET.packets()[1]), 0) == "batch-digest-mismatch"
