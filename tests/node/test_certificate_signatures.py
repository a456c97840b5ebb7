"""Certificates at the door: every signature in them is checked, counts first, all or nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from cores import Cores, seen
from view_changes import new_view, quiet, view_change

from pbft.codec import encode
from pbft.core import events
from pbft.messages import (
    Batch,
    Envelope,
    Incarnation,
    NewView,
    Packet,
    PreparedProof,
    PrePrepare,
    Proposal,
    Recovery,
    ViewChange,
)
from pbft.node.authentication import Authenticator, Rejected

D = b"d" * 32
BACKUP = 2


@pytest.fixture
def cores() -> Cores:
    return Cores()


@pytest.fixture
def door(cores: Cores) -> Authenticator:
    return Authenticator(cores.config, cores.registry, cores.cores[BACKUP])


def spoil(envelope: Envelope) -> Envelope:
    return Envelope(envelope.body, bytes(64))


def why(door: Authenticator, packet: Packet, peer: int) -> str:
    with pytest.raises(Rejected) as rejected:
        door.open(encode(packet), peer)
    return str(rejected.value)


def full(cores: Cores, i: int) -> ViewChange:
    """A VIEW-CHANGE with a checkpoint and a prepared certificate."""
    proof = cores.prepared_proof(cores.content(cores.request()), 5)
    return view_change(cores, i, 1, [proof], stable=(4, D))


def with_checkpoint(change: ViewChange, forge: Callable[[Envelope], Envelope]) -> ViewChange:
    first, *rest = change.stable_proof
    return remade(change, stable_proof=(forge(first), *rest))


def with_prepared(change: ViewChange, proof: PreparedProof) -> ViewChange:
    return remade(change, prepared=(proof,))


def remade(change: ViewChange, **fields: Any) -> ViewChange:
    return ViewChange(**{name: getattr(change, name) for name in change.__struct_fields__} | fields)


@pytest.mark.rule("R28")
def test_a_sound_view_change_comes_in(cores: Cores, door: Authenticator) -> None:
    envelope = cores.envelope(3, full(cores, 3))
    event = door.open(encode(envelope), 3)
    assert isinstance(event, events.Received)
    assert event.message.body == full(cores, 3)
    assert door.verifications == 1 + 3 + 1 + 2


@pytest.mark.rule("R28")
@pytest.mark.parametrize("where", ["checkpoint", "pre-prepare", "prepare", "itself"])
def test_one_bad_signature_anywhere_drops_the_whole_view_change(
    cores: Cores, door: Authenticator, where: str
) -> None:
    honest = full(cores, 3)
    [proof] = honest.prepared
    forged = {
        "checkpoint": with_checkpoint(honest, spoil),
        "pre-prepare": with_prepared(
            honest, PreparedProof(spoil(proof.pre_prepare), proof.prepares)
        ),
        "prepare": with_prepared(
            honest,
            PreparedProof(proof.pre_prepare, (*proof.prepares[:1], spoil(proof.prepares[1]))),
        ),
        "itself": honest,
    }[where]
    envelope = cores.envelope(3, forged)
    if where == "itself":
        envelope = spoil(envelope)
    assert why(door, envelope, 3) == "bad-signature"


@pytest.mark.rule("R28")
def test_counts_come_before_signatures(cores: Cores, door: Authenticator) -> None:
    honest = full(cores, 3)
    forged = remade(honest, stable_proof=honest.stable_proof[:2])
    assert why(door, cores.envelope(3, forged), 3).startswith("certificate: ")
    assert door.verifications == 0


@pytest.mark.rule("R29")
def test_an_invalid_view_change_does_not_hide_a_valid_one(
    cores: Cores, door: Authenticator
) -> None:
    core = cores.cores[BACKUP]
    cores.receive(BACKUP, view_change(cores, 1, 1))
    higher = remade(full(cores, 3), view=5)
    for forged in (with_checkpoint(full(cores, 3), spoil), with_checkpoint(higher, spoil)):
        assert why(door, cores.envelope(3, forged), 3) == "bad-signature"
    assert core.views.active
    cores.step(BACKUP, door.open(encode(cores.envelope(3, full(cores, 3))), 3))
    assert (core.views.view, core.views.active) == (1, False)


@pytest.mark.rule("R29")
def test_nobody_sends_a_view_change_in_anothers_name(cores: Cores, door: Authenticator) -> None:
    assert why(door, cores.envelope(3, full(cores, 3)), 1) == "impersonation"
    assert why(door, cores.envelope(1, full(cores, 3)), 3) == "bad-signature"


@pytest.mark.rule("R41")
@pytest.mark.rule("R44")
def test_a_recovery_may_be_passed_on_but_not_made_up(cores: Cores, door: Authenticator) -> None:
    body = Recovery(3, 1, 0, 0)
    assert door.open(encode(cores.envelope(3, body)), 0)
    assert why(door, cores.envelope(1, body), 0) == "bad-signature"
    assert why(door, cores.envelope(3, Incarnation(3, 1, 7, True)), 0) == "impersonation"


@pytest.mark.rule("R41")
def test_an_answer_about_a_start_must_show_it(cores: Cores, door: Authenticator) -> None:
    nonce = 99
    cores.restart(BACKUP)
    began = cores.envelope(BACKUP, Incarnation(BACKUP, 4, 7, True))
    made_up = cores.envelope(3, Incarnation(BACKUP, 9, 7, True))
    door = Authenticator(cores.config, cores.registry, cores.cores[BACKUP])
    for answer, reason in (
        (seen(3, BACKUP, nonce, 4, starts=(began,)), None),
        (seen(3, BACKUP, nonce, 5, starts=(began,)), "certificate: a start that is not shown"),
        (seen(3, BACKUP, nonce, 9, starts=(made_up,)), "bad-signature"),
    ):
        if reason is None:
            assert door.open(encode(cores.envelope(3, answer)), 3)
        else:
            assert why(door, cores.envelope(3, answer), 3).startswith(reason)


@pytest.mark.rule("R25")
@pytest.mark.parametrize("view", [2**32 + 1, 2**63 - 1])
def test_views_of_nonsense_are_dropped_before_any_signature(
    cores: Cores, door: Authenticator, view: int
) -> None:
    for body in (ViewChange(3, view, 0, D, (), ()), NewView(view % 4, view, (), ())):
        assert why(door, cores.envelope(body.replica, body), body.replica) == "view-far-ahead"
    assert door.verifications == 0


@pytest.mark.rule("R31")
def test_a_new_view_is_relayed_by_anybody_and_checked_to_the_bottom(
    cores: Cores, door: Authenticator
) -> None:
    body = new_view(cores, full(cores, 3), *quiet(cores, 1, 0, 1))
    relayed = encode(cores.envelope(1, body))
    event = door.open(relayed, 3)
    assert isinstance(event, events.Received)
    assert event.message.body == body


@pytest.mark.rule("R32")
@pytest.mark.parametrize("where", ["view-change", "nested", "pre-prepare"])
def test_one_bad_signature_anywhere_drops_the_whole_new_view(
    cores: Cores, door: Authenticator, where: str
) -> None:
    first = full(cores, 3)
    if where == "nested":
        first = with_checkpoint(first, spoil)
    body = new_view(cores, first, *quiet(cores, 1, 0, 1))
    changes, proposals = body.view_changes, body.pre_prepares
    if where == "view-change":
        changes = (*changes[:2], spoil(changes[2]))
    if where == "pre-prepare":
        proposals = (spoil(proposals[0]),)
    forged = NewView(1, 1, changes, proposals)
    assert why(door, cores.envelope(1, forged), 1) == "bad-signature"


@pytest.mark.rule("R3")
def test_one_bad_client_signature_drops_the_whole_proposal(
    cores: Cores, door: Authenticator
) -> None:
    good, other = cores.request(0), cores.request(1)
    content = cores.content(good, other)
    forged = Batch(content.batch.time, (good.envelope, spoil(other.envelope)))
    for batch, reason in ((forged, "batch-digest-mismatch"), (content.batch, None)):
        proposal = Proposal(cores.envelope(0, PrePrepare(0, 0, 1, content.digest)), batch)
        if reason:
            assert why(door, proposal, 0) == reason
        else:
            assert isinstance(door.open(encode(proposal), 0), events.ProposalReceived)


@pytest.mark.rule("R3")
def test_a_primary_cannot_order_what_no_client_has_signed(
    cores: Cores, door: Authenticator
) -> None:
    request = cores.request()
    forged = cores.content(request.__class__(request.body, spoil(request.envelope)))
    proposal = Proposal(cores.envelope(0, PrePrepare(0, 0, 1, forged.digest)), forged.batch)
    assert why(door, proposal, 0) == "bad-signature"


@pytest.mark.rule("R1")
def test_a_batch_of_something_else_than_requests_is_malformed(
    cores: Cores, door: Authenticator
) -> None:
    pre_prepare = cores.envelope(0, PrePrepare(0, 0, 1, D))
    batch = Batch(1, (pre_prepare,))
    assert why(door, Proposal(pre_prepare, batch), 0).startswith("malformed")
