"""What a new view proposes, who may open it, and who follows (R30-R33)."""

import pytest
from cores import SMALL, Cores, reasons, sent, votes_in
from view_changes import leave, new_view, opening, prepared_at, quiet, view_change

from pbft.codec import NULL_DIGEST, decode_body
from pbft.core import events
from pbft.core.batches import BatchContent
from pbft.core.certificates import InvalidCertificate
from pbft.core.new_view import check, compute
from pbft.messages import (
    Checkpoint,
    NewView,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proposal,
    ViewChange,
)

NEW_PRIMARY, BACKUP = 1, 2
A, B = b"a" * 32, b"b" * 32


@pytest.fixture
def cores() -> Cores:
    return Cores()


def certificate(cores: Cores, seq: int, digest: bytes, view: int = 0) -> PreparedProof:
    """A prepared certificate for a digest; nobody asks for its bodies here."""
    content = BatchContent(digest, cores.content().batch, (), ())
    return cores.prepared_proof(content, seq, view)


def planned(cores: Cores, *changes: ViewChange) -> list[tuple[int, bytes]]:
    plan = compute(cores.contexts[0].quorum, changes)
    return [(proposal.seq, proposal.digest) for proposal in plan.proposals]


# -- R30, R32, R33: what follows from the VIEW-CHANGEs


@pytest.mark.rule("R30")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_certificate_of_the_highest_view_wins(cores: Cores, order: tuple[int, ...]) -> None:
    changes = [
        view_change(cores, 0, 6, [certificate(cores, 1, A, view=1)]),
        view_change(cores, 1, 6, [certificate(cores, 1, B, view=4)]),
        view_change(cores, 2, 6, [certificate(cores, 1, A, view=3)]),
    ]
    assert planned(cores, *(changes[i] for i in order)) == [(1, B)]


@pytest.mark.rule("R30")
def test_a_certificate_that_one_replica_holds_is_enough(cores: Cores) -> None:
    changes = [view_change(cores, 3, 1, [certificate(cores, 1, A)]), *quiet(cores, 1, 0, 1)]
    assert planned(cores, *changes) == [(1, A)]


@pytest.mark.rule("R30")
def test_a_prepared_certificate_goes_on_through_views_that_failed(cores: Cores) -> None:
    digest = prepared_at(cores, BACKUP, 1)
    for view in (1, 2, 5):
        output = leave(cores, BACKUP, view, (0, 3))
        [change] = votes_in(output, ViewChange)
        assert [decode_body(proof.pre_prepare.body) for proof in change.prepared] == [
            PrePrepare(0, 0, 1, digest)
        ]
        assert planned(cores, change, *quiet(cores, view, 0, 3)) == [(1, digest)]


@pytest.mark.rule("R30")
def test_a_prepared_certificate_outlives_a_view_that_proposes_something_else(
    cores: Cores,
) -> None:
    digest = prepared_at(cores, BACKUP, 1)
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    [change] = votes_in(leave(cores, BACKUP, 2, (0, 3)), ViewChange)
    assert planned(cores, change) == [(1, digest)]


@pytest.mark.rule("R30")
def test_a_later_certificate_replaces_the_earlier_one(cores: Cores) -> None:
    prepared_at(cores, BACKUP, 1)
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    later = prepared_at(cores, BACKUP, 1, bundle=9, view=1)
    [change] = votes_in(leave(cores, BACKUP, 2, (0, 3)), ViewChange)
    assert planned(cores, change) == [(1, later)]


@pytest.mark.rule("R32")
def test_gaps_become_null_requests(cores: Cores) -> None:
    proofs = [certificate(cores, 2, A), certificate(cores, 5, B)]
    changes = [view_change(cores, 3, 1, proofs), *quiet(cores, 1, 0, 1)]
    assert planned(cores, *changes) == [
        (1, NULL_DIGEST),
        (2, A),
        (3, NULL_DIGEST),
        (4, NULL_DIGEST),
        (5, B),
    ]


@pytest.mark.rule("R33")
def test_min_s_is_the_highest_checkpoint_and_what_lies_below_is_ignored(cores: Cores) -> None:
    changes = [
        view_change(cores, 0, 1, [certificate(cores, 3, A), certificate(cores, 4, A)]),
        view_change(cores, 1, 1, stable=(4, A)),
        view_change(cores, 3, 1, [certificate(cores, 6, B)]),
    ]
    plan = compute(cores.contexts[0].quorum, changes)
    assert (plan.min_seq, plan.max_seq) == (4, 6)
    assert plan.stable_proof == cores.checkpoint_proof(4, A)
    assert planned(cores, *changes) == [(5, NULL_DIGEST), (6, B)]


@pytest.mark.rule("R33")
def test_max_s_is_never_below_min_s(cores: Cores) -> None:
    changes = [
        view_change(cores, 0, 1, [certificate(cores, 3, A)]),
        view_change(cores, 1, 1, stable=(4, A)),
        *quiet(cores, 1, 3),
    ]
    plan = compute(cores.contexts[0].quorum, changes)
    assert (plan.min_seq, plan.max_seq, plan.proposals) == (4, 4, ())


@pytest.mark.rule("R33")
def test_a_plan_without_certificates_begins_after_the_checkpoint(cores: Cores) -> None:
    changes = [*quiet(cores, 1, 0, 1), view_change(cores, 3, 1, stable=(8, A))]
    plan = compute(cores.contexts[0].quorum, changes)
    assert (plan.min_seq, plan.max_seq, plan.proposals) == (8, 8, ())


@pytest.mark.rule("R33")
def test_whoever_enters_takes_over_the_checkpoint_and_its_proof(cores: Cores) -> None:
    changes = [*quiet(cores, 1, 0, 1), view_change(cores, 3, 1, stable=(4, A))]
    cores.receive(BACKUP, new_view(cores, *changes))
    checkpoints = cores.cores[BACKUP].checkpoints
    assert (checkpoints.stable_seq, checkpoints.stable_digest) == (4, A)
    assert checkpoints.stable_proof == cores.checkpoint_proof(4, A)
    assert cores.cores[BACKUP].log.high == 4 + SMALL.window


@pytest.mark.rule("R33")
def test_a_replica_ahead_of_min_s_keeps_its_checkpoint_and_votes_only_above_it(
    cores: Cores,
) -> None:
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, 8, B))
    content = cores.content(cores.request())
    cores.cores[BACKUP].log.add_content(cores.cores[BACKUP].log.slot(9), content)
    proof = cores.prepared_proof(content, 9)
    changes = [view_change(cores, 3, 1, [proof], stable=(4, A)), *quiet(cores, 1, 0, 1)]
    output = cores.receive(BACKUP, new_view(cores, *changes))
    assert votes_in(output, Prepare) == [Prepare(BACKUP, 1, 9, content.digest)]
    assert cores.cores[BACKUP].checkpoints.stable_seq == 8


# -- R31: who opens a view


@pytest.mark.rule("R31")
@pytest.mark.parametrize("n", [4, 5, 7])
def test_a_primary_opens_its_view_with_q_view_changes(n: int) -> None:
    cores = Cores(n)
    q = cores.contexts[0].quorum.q
    others = [i for i in range(n) if i != NEW_PRIMARY]
    outputs = [cores.receive(NEW_PRIMARY, change) for change in quiet(cores, 1, *others[:q])]
    assert [bool(sent(output, NewView)) for output in outputs] == [False] * (q - 1) + [True]
    [(to, body)] = sent(outputs[-1], NewView)
    assert isinstance(body, NewView)
    assert to is None
    assert len(check(cores.contexts[0].quorum, body).proposals) == 0
    assert len(body.view_changes) == q


@pytest.mark.rule("R31")
@pytest.mark.rule("R6")
def test_repeated_and_other_view_changes_open_nothing(cores: Cores) -> None:
    changes = [*quiet(cores, 1, 0, 0, 2, 2, 0), *quiet(cores, 5, 3)]
    outputs = [cores.receive(NEW_PRIMARY, change) for change in changes]
    assert not any(sent(output, NewView) for output in outputs)


@pytest.mark.rule("R31")
def test_a_replica_opens_only_views_that_it_leads(cores: Cores) -> None:
    outputs = [cores.receive(BACKUP, change) for change in quiet(cores, 1, 0, 1, 3)]
    assert not any(sent(output, NewView) for output in outputs)


@pytest.mark.rule("R31")
def test_a_primary_opens_its_view_once(cores: Cores) -> None:
    for change in quiet(cores, 1, 0, 2, 3):
        cores.receive(NEW_PRIMARY, change)
    output = cores.receive(NEW_PRIMARY, view_change(cores, NEW_PRIMARY, 1))
    assert not sent(output, NewView)


@pytest.mark.rule("R31")
@pytest.mark.parametrize("view", [1, 2, 3])
def test_views_never_move_backwards(cores: Cores, view: int) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 3, 0, 1, 3)))
    output = cores.receive(BACKUP, new_view(cores, *quiet(cores, view, 0, 1, 3)))
    assert not output.notes
    assert not output.persist
    assert (cores.cores[BACKUP].views.view, cores.cores[BACKUP].views.active) == (3, True)


@pytest.mark.rule("R31")
def test_whoever_has_left_for_a_later_view_does_not_enter_an_earlier_one(cores: Cores) -> None:
    leave(cores, BACKUP, 3)
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    assert (cores.cores[BACKUP].views.view, cores.cores[BACKUP].views.active) == (3, False)


# -- R32: a backup computes for itself


def mismatches(cores: Cores) -> dict[str, NewView]:
    """NEW-VIEWs of a liar: seq 2 is prepared, and 1 is a gap."""
    proof = certificate(cores, 2, A)
    changes = [view_change(cores, 3, 1, [proof]), *quiet(cores, 1, 0, 1)]
    right = [(1, NULL_DIGEST), (2, A)]
    honest = opening(cores, changes, right)
    stranger = cores.envelope(3, PrePrepare(3, 1, 2, A))
    other_view = cores.envelope(1, PrePrepare(1, 5, 2, A))
    first = honest.pre_prepares[0]
    return {
        "drops a prepared request": opening(cores, changes, []),
        "drops the last one": opening(cores, changes, right[:1]),
        "replaces a prepared request": opening(cores, changes, [(1, NULL_DIGEST), (2, B)]),
        "puts null in place of it": opening(cores, changes, [(1, NULL_DIGEST), (2, NULL_DIGEST)]),
        "fills a gap with its own": opening(cores, changes, [(1, B), (2, A)]),
        "leaves a gap": opening(cores, changes, right[1:]),
        "adds a request of its own": opening(cores, changes, [*right, (3, B)]),
        "changes the order": opening(cores, changes, right[::-1]),
        "repeats one": opening(cores, changes, [*right, right[1]]),
        "lets another propose": NewView(1, 1, honest.view_changes, (first, stranger)),
        "proposes for another view": NewView(1, 1, honest.view_changes, (first, other_view)),
    }


@pytest.mark.rule("R32")
@pytest.mark.parametrize("lie", sorted(mismatches(Cores())))
def test_a_new_view_that_does_not_follow_starts_the_next_view_change_at_once(
    cores: Cores, lie: str
) -> None:
    leave(cores, BACKUP, 1, (0, 3))
    output = cores.receive(BACKUP, mismatches(cores)[lie])
    assert reasons(output) == ["new-view-mismatch"]
    assert [change.view for change in votes_in(output, ViewChange)] == [2]
    assert not votes_in(output, Prepare)
    assert not cores.cores[BACKUP].views.active


@pytest.mark.rule("R32")
@pytest.mark.parametrize("lie", sorted(mismatches(Cores())))
def test_a_new_view_that_does_not_follow_is_refused_by_the_check(cores: Cores, lie: str) -> None:
    with pytest.raises(InvalidCertificate):
        check(cores.contexts[0].quorum, mismatches(cores)[lie])


@pytest.mark.rule("R32")
def test_a_false_new_view_for_a_view_not_sought_moves_nobody(cores: Cores) -> None:
    output = cores.receive(BACKUP, mismatches(cores)["drops a prepared request"])
    assert reasons(output) == ["new-view-mismatch"]
    assert not output.own
    assert (cores.cores[BACKUP].views.view, cores.cores[BACKUP].views.active) == (0, True)


@pytest.mark.rule("R32")
def test_an_honest_new_view_is_followed_with_votes_on_all_it_proposes(cores: Cores) -> None:
    digest = prepared_at(cores, BACKUP, 2)
    [change] = votes_in(leave(cores, BACKUP, 1, (0, 3)), ViewChange)
    output = cores.receive(BACKUP, new_view(cores, change, *quiet(cores, 1, 0, 1)))
    assert votes_in(output, Prepare) == [
        Prepare(BACKUP, 1, 1, NULL_DIGEST),
        Prepare(BACKUP, 1, 2, digest),
    ]


@pytest.mark.rule("R32")
def test_the_new_primarys_first_own_proposal_comes_after_max_s(cores: Cores) -> None:
    cores.ask(NEW_PRIMARY, cores.request(client=1))
    proof = certificate(cores, 2, A)
    for change in [view_change(cores, 3, 1, [proof]), *quiet(cores, 1, 0, 2)]:
        cores.receive(NEW_PRIMARY, change)
    cores.cores[NEW_PRIMARY].queue.jump(2)
    output = cores.step(NEW_PRIMARY, events.TurnEnded())
    [proposal] = [send.packet for send in output.sends if isinstance(send.packet, Proposal)]
    assert decode_body(proposal.pre_prepare.body).seq == 3  # type: ignore[union-attr]
