"""What a proof must hold before anybody believes it (R21, R28): shape, counts, signers."""

from collections.abc import Callable

import pytest
from cores import SMALL, Cores
from view_changes import NOWHERE, new_view, quiet, view_change

from pbft.core.certificates import (
    InvalidCertificate,
    check_checkpoints,
    check_commits,
    check_prepared,
    check_view_change,
    signatures_in,
)
from pbft.messages import (
    Checkpoint,
    Commit,
    Envelope,
    Prepare,
    PreparedProof,
    PrePrepare,
    ViewChange,
)

D, OTHER = b"d" * 32, b"o" * 32
WINDOW = SMALL.window


@pytest.fixture
def cores() -> Cores:
    return Cores()


def refused(cores: Cores, change: ViewChange) -> str:
    with pytest.raises(InvalidCertificate) as refusal:
        check_view_change(cores.contexts[0].quorum, WINDOW, change)
    return str(refusal.value)


def proof_of(
    cores: Cores,
    voters: list[int],
    primary: int = 0,
    vote: tuple[int, int, bytes] = (0, 1, D),
) -> PreparedProof:
    """A prepared certificate for D at seq 1 of view 0 with the parts that a forger chooses."""
    return PreparedProof(
        cores.envelope(primary, PrePrepare(primary, 0, 1, D)),
        tuple(cores.envelope(i, Prepare(i, *vote)) for i in voters),
    )


# -- prepared certificates


@pytest.mark.rule("R28")
@pytest.mark.parametrize(("n", "enough"), [(4, 2), (5, 3), (6, 3), (7, 4)])
def test_a_prepared_certificate_needs_q_minus_1_backups(n: int, enough: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    backups = list(range(1, n))
    assert check_prepared(quorum, proof_of(cores, backups[:enough])).seq == 1
    with pytest.raises(InvalidCertificate, match="too few"):
        check_prepared(quorum, proof_of(cores, backups[: enough - 1]))


@pytest.mark.rule("R28")
@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("voters", "why"),
    [
        ([1, 1], "repeated"),
        ([1, 0], "repeated"),  # the primary's own PREPARE does not count (R4)
        ([1, 2, 2], "repeated"),
        ([1], "too few"),
        ([], "too few"),
    ],
)
def test_a_forged_prepared_certificate_proves_nothing(
    cores: Cores, voters: list[int], why: str
) -> None:
    change = view_change(cores, 2, 1, [proof_of(cores, voters)])
    assert why in refused(cores, change)


@pytest.mark.rule("R28")
@pytest.mark.parametrize("vote", [(0, 1, OTHER), (1, 1, D), (0, 2, D)])
def test_prepares_that_do_not_match_their_pre_prepare_prove_nothing(
    cores: Cores, vote: tuple[int, int, bytes]
) -> None:
    assert "do not match" in refused(
        cores, view_change(cores, 2, 1, [proof_of(cores, [1, 2], vote=vote)])
    )


@pytest.mark.rule("R28")
def test_a_pre_prepare_of_another_than_the_primary_proves_nothing(cores: Cores) -> None:
    change = view_change(cores, 2, 1, [proof_of(cores, [1, 2], primary=3)])
    assert "not the primary's" in refused(cores, change)


@pytest.mark.rule("R28")
def test_a_signer_that_does_not_exist_proves_nothing(cores: Cores) -> None:
    proof = proof_of(cores, [1, 2])
    stranger = Envelope(cores.envelope(3, Prepare(4, 0, 1, D)).body, bytes(64))
    forged = PreparedProof(proof.pre_prepare, (proof.prepares[0], stranger))
    assert "unknown" in refused(cores, view_change(cores, 2, 1, [forged]))


@pytest.mark.rule("R28")
def test_commits_do_not_pass_for_prepares_nor_garbage_for_anything(cores: Cores) -> None:
    proof = proof_of(cores, [1, 2])
    commit = cores.envelope(3, Commit(3, 0, 1, D))
    swapped = PreparedProof(proof.pre_prepare, (proof.prepares[0], commit))
    assert "another type" in refused(cores, view_change(cores, 2, 1, [swapped]))
    garbage = PreparedProof(Envelope(b"\xc1", bytes(64)), proof.prepares)
    refused(cores, view_change(cores, 2, 1, [garbage]))


# -- VIEW-CHANGE


@pytest.mark.rule("R28")
def test_a_view_change_shows_its_prepared_certificates(cores: Cores) -> None:
    contents = [cores.content(cores.request(bundle=seq)) for seq in (5, 7)]
    proofs = [cores.prepared_proof(c, seq) for c, seq in zip(contents, (5, 7), strict=True)]
    change = view_change(cores, 2, 1, proofs, stable=(4, D))
    found = check_view_change(cores.contexts[0].quorum, WINDOW, change)
    assert [(p.view, p.seq, p.digest) for p in found] == [
        (0, 5, contents[0].digest),
        (0, 7, contents[1].digest),
    ]


@pytest.mark.rule("R28")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_view_change_proves_its_stable_checkpoint_with_q(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    for count in (quorum.q - 1, quorum.q):
        change = ViewChange(2, 1, 4, D, cores.checkpoint_proof(4, D, count), ())
        if count == quorum.q:
            assert check_view_change(quorum, WINDOW, change) == ()
        else:
            assert "too few" in refused(cores, change)


@pytest.mark.rule("R28")
def test_an_inflated_stable_checkpoint_is_refused(cores: Cores) -> None:
    honest = cores.checkpoint_proof(4, D)
    for seq, digest, proof in [
        (8, D, honest),  # further than the proof shows
        (2**63 - 1, D, honest),
        (4, OTHER, honest),  # another state than the proof shows
        (4, D, ()),
        (4, D, honest[:2] + honest[:1]),  # one signer twice
        (4, D, (*honest[:2], cores.envelope(2, Checkpoint(2, 4, OTHER)))),
        (4, D, (*honest[:2], cores.envelope(2, Checkpoint(2, 8, D)))),
        (4, D, (*honest[:2], Envelope(cores.envelope(3, Checkpoint(9, 4, D)).body, bytes(64)))),
        (0, D, honest),  # the initial state needs no proof, and has none
    ]:
        refused(cores, ViewChange(2, 1, seq, digest, proof, ()))


@pytest.mark.rule("R28")
@pytest.mark.parametrize(("seq", "inside"), [(4, False), (5, True), (12, True), (13, False)])
def test_prepared_certificates_lie_in_the_window_above_the_checkpoint(
    cores: Cores, seq: int, inside: bool
) -> None:
    proof = cores.prepared_proof(cores.content(cores.request()), seq)
    change = view_change(cores, 2, 1, [proof], stable=(4, D))
    if inside:
        assert check_view_change(cores.contexts[0].quorum, WINDOW, change)
    else:
        assert "outside of the window" in refused(cores, change)


@pytest.mark.rule("R28")
@pytest.mark.parametrize("seqs", [(2, 1), (1, 1)])
def test_there_is_one_prepared_certificate_per_number_in_order(
    cores: Cores, seqs: tuple[int, int]
) -> None:
    content = cores.content(cores.request())
    proofs = [cores.prepared_proof(content, seq) for seq in seqs]
    assert "out of order or repeated" in refused(cores, view_change(cores, 2, 1, proofs))


@pytest.mark.rule("R28")
@pytest.mark.parametrize(("view", "valid"), [(2, True), (3, False), (2**63 - 1, False)])
def test_a_prepared_certificate_comes_from_an_earlier_view(
    cores: Cores, view: int, valid: bool
) -> None:
    proof = cores.prepared_proof(cores.content(cores.request()), 1, view)
    change = view_change(cores, 2, 3, [proof])
    if valid:
        assert check_view_change(cores.contexts[0].quorum, WINDOW, change)
    else:
        assert "later view" in refused(cores, change)


@pytest.mark.rule("R28")
@pytest.mark.parametrize("change", [ViewChange(2, 0, 0, D, (), ()), ViewChange(4, 1, 0, D, (), ())])
def test_a_view_change_for_view_0_or_of_a_stranger_is_refused(
    cores: Cores, change: ViewChange
) -> None:
    refused(cores, change)


@pytest.mark.rule("R28")
def test_a_huge_view_change_is_refused_by_its_counts(cores: Cores) -> None:
    nonsense = PreparedProof(Envelope(b"?", bytes(64)), (Envelope(b"?", bytes(64)),) * 128)
    change = ViewChange(2, 1, 0, NOWHERE, (), (nonsense,) * (WINDOW + 1))
    assert "than the window holds" in refused(cores, change), "nothing in it was even decoded"


# -- the other two


@pytest.mark.rule("R21")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_checkpoint_proof_counts_distinct_matching_signers(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    proof = cores.checkpoint_proof(4, D)
    assert check_checkpoints(quorum, proof, quorum.q) == Checkpoint(0, 4, D)
    for forged in (proof[1:], (*proof[1:], proof[1]), ()):
        with pytest.raises(InvalidCertificate):
            check_checkpoints(quorum, forged, quorum.q)


@pytest.mark.rule("R23")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_commit_certificate_counts_distinct_matching_signers(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    votes = [cores.envelope(i, Commit(i, 0, 1, D)) for i in range(quorum.q)]
    assert check_commits(quorum, tuple(votes)).digest == D
    odd: list[Callable[[int], Commit]] = [
        lambda i: Commit(i, 1, 1, D),
        lambda i: Commit(i, 0, 2, D),
        lambda i: Commit(i, 0, 1, OTHER),
        lambda i: Commit(1, 0, 1, D),
        lambda i: Commit(n, 0, 1, D),
    ]
    for forge in odd:
        last = cores.envelope(0, forge(0))
        with pytest.raises(InvalidCertificate):
            check_commits(quorum, (*votes[1:], last))
    with pytest.raises(InvalidCertificate):
        check_commits(quorum, tuple(votes[1:]))


@pytest.mark.rule("R28")
def test_every_signature_inside_is_named_with_its_signer(cores: Cores) -> None:
    proof = cores.prepared_proof(cores.content(cores.request()), 5)
    first = view_change(cores, 2, 1, [proof], stable=(4, D))
    body = new_view(cores, first, *quiet(cores, 1, 0, 3))
    inside = list(signatures_in(body))
    stable = [(i, cores.envelope(i, Checkpoint(i, 4, D))) for i in range(3)]
    assert inside[0] == (2, cores.envelope(2, first))
    assert inside[1:4] == stable
    assert inside[4:7] == [(0, proof.pre_prepare), (1, proof.prepares[0]), (2, proof.prepares[1])]
    assert [signer for signer, _ in inside[7:9]] == [0, 3]
    assert inside[9:] == [(1, envelope) for envelope in body.pre_prepares]
    assert len(body.pre_prepares) == 1
