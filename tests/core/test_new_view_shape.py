"""What a NEW-VIEW must hold before anybody looks at what it proposes (R29, R31, R32)."""

import pytest
from cores import SMALL, Cores
from view_changes import new_view, quiet, view_change

from pbft.core.certificates import InvalidCertificate, check_new_view_shape
from pbft.messages import Envelope, NewView, ViewChange

D = b"d" * 32
WINDOW = SMALL.window


@pytest.fixture
def cores() -> Cores:
    return Cores()


def refused_opening(cores: Cores, body: NewView) -> str:
    with pytest.raises(InvalidCertificate) as refusal:
        check_new_view_shape(cores.contexts[0].quorum, WINDOW, body)
    return str(refusal.value)


@pytest.mark.rule("R31")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_new_view_needs_q_view_changes(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    for count in (quorum.q - 1, quorum.q):
        body = new_view(cores, *quiet(cores, 1, *range(count)))
        if count == quorum.q:
            assert len(check_new_view_shape(quorum, WINDOW, body)) == quorum.q
        else:
            assert "too few" in refused_opening(cores, body)


@pytest.mark.rule("R31")
@pytest.mark.rule("R6")
def test_a_new_view_counts_signers_and_not_messages(cores: Cores) -> None:
    body = new_view(cores, *quiet(cores, 1, 0, 2, 2))
    assert "repeated" in refused_opening(cores, body)
    proof = cores.prepared_proof(cores.content(cores.request()), 1)
    double = [*quiet(cores, 1, 0, 2), view_change(cores, 2, 1, [proof])]
    assert "repeated" in refused_opening(cores, new_view(cores, *double))


@pytest.mark.rule("R31")
@pytest.mark.parametrize("other", [1, 3, 6])
def test_every_view_change_in_a_new_view_is_for_just_that_view(cores: Cores, other: int) -> None:
    changes = [*quiet(cores, 2, 0, 1), *quiet(cores, other, 3)]
    assert "another view" in refused_opening(cores, new_view(cores, *changes))


@pytest.mark.rule("R31")
@pytest.mark.parametrize("impostor", [0, 2, 3])
def test_a_new_view_comes_from_its_primary(cores: Cores, impostor: int) -> None:
    body = new_view(cores, *quiet(cores, 1, 0, 1, 2), primary=impostor)
    assert "not its primary's" in refused_opening(cores, body)


@pytest.mark.rule("R31")
def test_view_0_is_never_opened(cores: Cores) -> None:
    assert "view 0" in refused_opening(cores, new_view(cores, *quiet(cores, 0, 0, 1, 2)))


@pytest.mark.rule("R29")
@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_one_invalid_view_change_spoils_a_new_view(cores: Cores, spoilt: int) -> None:
    changes = quiet(cores, 1, 0, 1, 2)
    honest = new_view(cores, *changes)
    forged = ViewChange(spoilt, 1, 8, D, cores.checkpoint_proof(8, D, 2), ())
    envelopes = list(honest.view_changes)
    envelopes[spoilt] = cores.envelope(spoilt, forged)
    body = NewView(1, 1, tuple(envelopes), ())
    assert "too few" in refused_opening(cores, body)


@pytest.mark.rule("R32")
def test_a_new_view_with_more_proposals_than_a_window_is_refused(cores: Cores) -> None:
    body = new_view(cores, *quiet(cores, 1, 0, 1, 2))
    many = NewView(1, 1, body.view_changes, (Envelope(b"?", bytes(64)),) * (WINDOW + 1))
    assert "than the window holds" in refused_opening(cores, many)
