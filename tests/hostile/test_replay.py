"""What was said once, said again where it was not meant: nothing of it is believed."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from target import D, Target, frame

from crypto.signing import Ed25519Signer
from network.handshake import SIGNING_DOMAIN as HANDSHAKE_DOMAIN
from pbft.codec import encode, signing_input
from pbft.messages import (
    Checkpoint,
    Commit,
    Envelope,
    FetchBatch,
    Prepare,
    PrePrepare,
    Read,
    Request,
    Status,
    StatusQuery,
    Suspect,
)

TARGET = Target()
CLIENT, OTHER_CLIENT = (signer.public_key for signer in TARGET.clients)
EVE = Ed25519Signer(b"z" * 32)
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group

SPOKEN = [
    Prepare(2, 0, 1, D),
    Commit(2, 0, 1, D),
    Checkpoint(2, 4, D),
    Suspect(2, 0),
    Status(2, 0, True, 0, 0, ()),
    FetchBatch(2, 1, D),
    Request(CLIENT, 1, 0, 0, False, ()),
    Read(CLIENT, 1, 0, (b"op",)),
    StatusQuery(CLIENT, 1),
]


def with_signature_of(said, heard):
    """What the sender of `said` has signed, passed off as `heard`."""
    return frame(Envelope(encode(heard), TARGET.sign(said).signature))


def refused_for_its_signature(raw, peer):
    return TARGET.refuse(raw, peer, verifications=1) == "bad-signature"


@pytest.mark.rule("R7")
@pytest.mark.parametrize("body", SPOKEN, ids=lambda body: type(body).__name__)
def test_a_message_of_another_cluster_is_refused(body):
    foreign = TARGET.sign(body, cluster=b"c" * 32)
    assert refused_for_its_signature(frame(foreign), TARGET.peer_of(body))


@pytest.mark.rule("R7")
@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (Prepare(2, 0, 1, D), Commit(2, 0, 1, D)),
        (Commit(2, 0, 1, D), Prepare(2, 0, 1, D)),
        (PrePrepare(2, 0, 1, D), Prepare(2, 0, 1, D)),
        (FetchBatch(2, 4, D), Checkpoint(2, 4, D)),
        (Read(CLIENT, 1, 0, (b"op",)), StatusQuery(CLIENT, 1)),
    ],
)
def test_a_signature_for_one_type_is_not_one_for_another(said, heard):
    assert refused_for_its_signature(with_signature_of(said, heard), TARGET.peer_of(heard))


@pytest.mark.rule("R7")
@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (Prepare(2, 0, 1, D), Prepare(2, 1, 1, D)),
        (Prepare(2, 0, 1, D), Prepare(2, 0, 2, D)),
        (Prepare(2, 0, 1, D), Prepare(2, 0, 1, bytes(32))),
        (Commit(2, 0, 1, D), Commit(2, 7, 1, D)),
        (Suspect(2, 0), Suspect(2, 1)),
        (Request(CLIENT, 1, 0, 0, False, ()), Request(CLIENT, 2, 0, 0, False, ())),
        (Request(CLIENT, 1, 1, 0, False, (b"a",)), Request(CLIENT, 1, 2, 0, False, (b"a",))),
        (Request(CLIENT, 1, 1, 0, False, (b"a",)), Request(CLIENT, 1, 1, 0, True, (b"a",))),
        (StatusQuery(CLIENT, 1), StatusQuery(CLIENT, 2)),
    ],
)
def test_a_signature_for_one_view_or_number_is_not_one_for_another(said, heard):
    assert refused_for_its_signature(with_signature_of(said, heard), TARGET.peer_of(heard))


@pytest.mark.rule("R7")
@pytest.mark.parametrize("body", SPOKEN, ids=lambda body: type(body).__name__)
def test_a_signature_made_in_a_handshake_signs_no_message(body):
    message = signing_input(TARGET.config.cluster_id, encode(body))
    signature = TARGET.signer_of(body).sign(HANDSHAKE_DOMAIN, message)
    assert refused_for_its_signature(frame(Envelope(encode(body), signature)), TARGET.peer_of(body))


@pytest.mark.rule("R7")
@pytest.mark.parametrize("body", SPOKEN, ids=lambda body: type(body).__name__)
def test_a_signature_covers_what_the_protocol_s_description_says(body):
    """Signed by another library, from docs/protocol.md: domain, cluster id, digest of the body."""
    raw, domain = encode(body), b"pbft/1 message"
    covered = bytes([len(domain)]) + domain + TARGET.config.cluster_id + sha256(raw).digest()
    signer = TARGET.signer_of(body)
    private = Ed25519PrivateKey.from_private_bytes(signer._secret_key[:32])
    assert private.sign(covered) == TARGET.sign(body).signature


@pytest.mark.parametrize("body", SPOKEN, ids=lambda body: type(body).__name__)
def test_a_signature_that_anybody_could_have_made_of_a_valid_one_is_refused(body):
    """S + L satisfies the equation too: it is malleable, so it is no signature."""
    valid = TARGET.sign(body)
    s = int.from_bytes(valid.signature[32:], "little") + ORDER
    malleated = Envelope(valid.body, valid.signature[:32] + s.to_bytes(32, "little"))
    assert refused_for_its_signature(frame(malleated), TARGET.peer_of(body))


@pytest.mark.rule("R44")
def test_what_one_replica_has_signed_is_not_taken_from_another_s_channel():
    for body in SPOKEN[:6]:
        assert TARGET.refuse(frame(TARGET.sign(body)), 3) == "impersonation"


@pytest.mark.rule("R44")
def test_what_one_client_has_signed_is_not_taken_from_another_s_channel():
    for body in SPOKEN[6:]:
        assert TARGET.refuse(frame(TARGET.sign(body)), OTHER_CLIENT) == "impersonation"


def test_nobody_says_what_is_not_for_it_to_say():
    for body in SPOKEN[:6]:
        reason = TARGET.refuse(frame(TARGET.sign(body)), CLIENT)
        assert reason == "message-not-for-clients-to-send"
    for body in SPOKEN[7:]:
        reason = TARGET.refuse(frame(TARGET.sign(body)), 2)
        assert reason == "message-not-for-replicas-to-send"
    for packet in TARGET.packets()[1:]:
        assert TARGET.refuse(frame(packet), CLIENT) == "packet-not-for-clients-to-send"


def test_a_request_of_somebody_unknown_is_refused_although_a_replica_relays_it():
    body = Request(EVE.public_key, 1, 0, 0, False, ())
    assert TARGET.refuse(frame(TARGET.seal(EVE, encode(body))), 2) == "unknown-client"


@pytest.mark.rule("R7")
def test_the_same_things_said_where_they_are_meant_are_believed():
    target = Target()
    for body in SPOKEN:
        assert target.take(frame(target.sign(body)), target.peer_of(body)) is not None
