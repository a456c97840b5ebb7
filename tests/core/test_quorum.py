"""How many replicas are enough: the numbers at the top of the rules, for every size of cluster."""

import pytest
from cores import Cores
from hypothesis import given, strategies as st

from pbft.core.quorum import Quorum, VoteSet
from pbft.messages import MAX_REPLICAS, Prepare

SIZES = st.integers(4, MAX_REPLICAS)
CLUSTER = Cores(7)


@pytest.mark.rule("R6")
@given(SIZES)
def test_two_quorums_always_share_a_correct_replica(n: int) -> None:
    quorum = Quorum(n)
    smallest_overlap = 2 * quorum.q - n
    assert smallest_overlap >= quorum.f + 1


@pytest.mark.rule("R6")
@given(SIZES)
def test_a_quorum_is_no_larger_than_the_overlap_asks(n: int) -> None:
    quorum = Quorum(n)
    assert 2 * (quorum.q - 1) - n < quorum.f + 1


@pytest.mark.rule("R6")
@given(SIZES)
def test_the_correct_replicas_alone_make_a_quorum(n: int) -> None:
    quorum = Quorum(n)
    assert quorum.q <= n - quorum.f


@pytest.mark.rule("R6")
@given(SIZES)
def test_a_weak_quorum_is_the_smallest_that_must_hold_a_correct_replica(n: int) -> None:
    quorum = Quorum(n)
    assert quorum.w - 1 == quorum.f
    assert quorum.w <= quorum.q


@pytest.mark.rule("R6")
@given(SIZES)
def test_f_is_the_most_that_n_allows(n: int) -> None:
    f = Quorum(n).f
    assert 3 * f + 1 <= n < 3 * (f + 1) + 1


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("n", "f", "q", "w"),
    [(4, 1, 3, 2), (5, 1, 4, 2), (6, 1, 4, 2), (7, 2, 5, 3), (8, 2, 6, 3), (128, 42, 86, 43)],
)
def test_the_thresholds_of_some_sizes(n: int, f: int, q: int, w: int) -> None:
    quorum = Quorum(n)
    assert (quorum.f, quorum.q, quorum.w) == (f, q, w)


@pytest.mark.rule("R6")
@pytest.mark.parametrize("n", [5, 6])
def test_between_3f_plus_1_a_quorum_of_2f_plus_1_would_be_unsafe(n: int) -> None:
    quorum = Quorum(n)
    naive = 2 * quorum.f + 1
    assert 2 * naive - n <= quorum.f, "two such quorums may share faulty replicas only"
    assert quorum.q > naive


@pytest.mark.parametrize("n", [-1, 0, 1, 3])
def test_fewer_than_four_replicas_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="at least 4"):
        Quorum(n)


@given(SIZES, st.integers(0, 2**63 - 1))
def test_the_primary_goes_round(n: int, view: int) -> None:
    quorum = Quorum(n)
    assert quorum.primary(view) == view % n
    assert quorum.primary(view + 1) == (quorum.primary(view) + 1) % n


@pytest.mark.rule("R6")
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([b"a" * 32, b"b" * 32]))))
def test_votes_are_counted_by_signer_and_the_first_one_stands(
    votes: list[tuple[int, bytes]],
) -> None:
    cores, counted = CLUSTER, VoteSet[Prepare]()
    first: dict[int, bytes] = {}
    for replica, digest in votes:
        vote = cores.sign(replica, Prepare(replica, 0, 1, digest))
        contradicted = counted.add(replica, digest, vote)
        assert (contradicted is not None) == (first.setdefault(replica, digest) != digest)
    for digest in (b"a" * 32, b"b" * 32):
        supporters = sorted(replica for replica, voted in first.items() if voted == digest)
        assert counted.count(digest) == len(supporters)
        assert [vote.body.replica for vote in counted.matching(digest)] == supporters
    assert len(counted) == len(first)
    assert sum(counted.tally().values()) == len(first)
