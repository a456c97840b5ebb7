import msgpack
import pytest
from hypothesis import given, strategies as st

from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.handshake import (
    BAD_SIGNATURE,
    MALFORMED,
    MAX_HANDSHAKE_BYTES,
    UNAUTHORISED,
    VERSION,
    WRONG_CLUSTER,
    WRONG_IDENTITY,
    WRONG_VERSION,
    DiallerHandshake,
    HandshakeError,
    ListenerHandshake,
)

ALICE, BOB, EVE = (Ed25519Signer(bytes([n]) * 32) for n in (1, 2, 3))
CLUSTER, OTHER_CLUSTER = b"c" * 32, b"d" * 32
VERIFIER = Ed25519Verifier()


def dialler(signer=BOB, expected=ALICE, cluster=CLUSTER, nonce=b"b" * 32):
    return DiallerHandshake(signer, VERIFIER, cluster, expected.public_key, nonce)


def listener(signer=ALICE, authorised=(BOB,), cluster=CLUSTER, nonce=b"a" * 32):
    keys = [each.public_key for each in authorised]
    return ListenerHandshake(signer, VERIFIER, cluster, keys.__contains__, nonce)


def refusal(end, frame):
    with pytest.raises(HandshakeError) as raised:
        end.receive(frame)
    assert not end.done
    return raised.value.reason


def test_two_honest_ends_authenticate_each_other():
    bob, alice = dialler(), listener()
    answer = bob.receive(alice.opening)
    assert not bob.done
    welcome = alice.receive(answer)
    assert alice.done
    assert bob.receive(welcome) is None
    assert bob.done
    assert (alice.peer, bob.peer) == (BOB.public_key, ALICE.public_key)
    assert bob.opening is None
    assert max(map(len, (alice.opening, answer, welcome))) <= MAX_HANDSHAKE_BYTES


def test_the_dialler_refuses_another_cluster():
    assert refusal(dialler(cluster=OTHER_CLUSTER), listener().opening) == WRONG_CLUSTER


def test_the_listener_refuses_a_dialler_that_signs_for_another_cluster():
    answer = dialler(cluster=OTHER_CLUSTER).receive(listener(cluster=OTHER_CLUSTER).opening)
    assert refusal(listener(), answer) == BAD_SIGNATURE


def test_the_dialler_refuses_another_listener():
    assert refusal(dialler(), listener(signer=EVE).opening) == WRONG_IDENTITY


def test_the_dialler_refuses_another_version():
    fields = msgpack.unpackb(listener().opening)
    assert refusal(dialler(), msgpack.packb([1, VERSION + 1, *fields[2:]])) == WRONG_VERSION


def test_the_listener_refuses_a_key_that_is_not_authorised():
    alice = listener()
    assert refusal(alice, dialler(signer=EVE).receive(alice.opening)) == UNAUTHORISED


def test_the_listener_refuses_a_key_of_small_order_although_it_is_authorised():
    small = b"\x01" + bytes(31)
    alice = ListenerHandshake(ALICE, VERIFIER, CLUSTER, lambda _: True, b"a" * 32)
    forged = small + bytes(32)
    assert refusal(alice, msgpack.packb([2, small, b"b" * 32, forged])) == UNAUTHORISED


def test_a_listener_without_the_key_cannot_finish():
    bob, eve = dialler(), listener(signer=EVE, authorised=(BOB,))
    bob.receive(listener().opening)
    eve_answer = dialler(expected=EVE).receive(eve.opening)
    assert refusal(bob, eve.receive(eve_answer)) == BAD_SIGNATURE


def test_a_recorded_answer_is_no_use_to_a_later_connection():
    first, later = listener(), listener(nonce=b"z" * 32)
    assert refusal(later, dialler().receive(first.opening)) == BAD_SIGNATURE


def test_a_recorded_welcome_is_no_use_to_a_later_connection():
    first, later, alice = dialler(), dialler(nonce=b"z" * 32), listener()
    welcome = alice.receive(first.receive(alice.opening))
    later.receive(alice.opening)
    assert refusal(later, welcome) == BAD_SIGNATURE


def test_a_dialler_s_own_signature_is_not_a_welcome():
    """Reflection: both ends hold one key and one nonce, so only the role differs."""
    twin = dialler(signer=ALICE, nonce=b"a" * 32)
    answer = msgpack.unpackb(twin.receive(listener(nonce=b"a" * 32).opening))
    assert refusal(twin, msgpack.packb([3, answer[3]])) == BAD_SIGNATURE


def test_a_listener_in_the_middle_cannot_pass_a_dialler_on_as_its_own():
    """Misbinding: Bob means Eve; Eve relays Alice's challenge, and Alice must not accept Bob."""
    alice = listener()
    challenge = msgpack.unpackb(alice.opening)
    challenge[3] = EVE.public_key
    answer = dialler(expected=EVE).receive(msgpack.packb(challenge))
    assert refusal(alice, answer) == BAD_SIGNATURE


def test_an_answer_cannot_be_claimed_by_another_authorised_key():
    alice = listener(authorised=(BOB, EVE))
    answer = msgpack.unpackb(dialler().receive(alice.opening))
    answer[1] = EVE.public_key
    assert refusal(alice, msgpack.packb(answer)) == BAD_SIGNATURE


@pytest.mark.parametrize("place", range(0, 133, 7))
def test_an_answer_with_a_flipped_bit_is_refused(place):
    alice = listener()
    answer = bytearray(dialler().receive(alice.opening))
    answer[place] ^= 1
    assert refusal(alice, bytes(answer)) in {MALFORMED, UNAUTHORISED, BAD_SIGNATURE}


def test_a_challenge_that_is_not_canonical_is_refused():
    opening = listener().opening
    version = bytes([VERSION])
    assert opening[:3] == b"\x95\x01" + version
    assert refusal(dialler(), b"\x95\x01\xcc" + version + opening[3:]) == MALFORMED


def test_missing_extra_and_trailing_parts_are_refused():
    fields = msgpack.unpackb(listener().opening)
    assert refusal(dialler(), msgpack.packb(fields[:-1])) == MALFORMED
    assert refusal(dialler(), msgpack.packb([*fields, 0])) == MALFORMED
    assert refusal(dialler(), listener().opening + b"\x00") == MALFORMED


def test_a_message_out_of_turn_is_refused():
    alice, bob = listener(), dialler()
    assert refusal(alice, alice.opening) == MALFORMED
    answer = bob.receive(alice.opening)
    assert refusal(bob, alice.opening) == MALFORMED
    bob.receive(alice.receive(answer))
    for end in (alice, bob):
        with pytest.raises(HandshakeError):
            end.receive(answer)


def test_a_message_of_more_than_512_bytes_is_refused():
    assert refusal(dialler(), bytes(MAX_HANDSHAKE_BYTES + 1)) == MALFORMED


@given(st.binary(max_size=600))
def test_garbage_never_raises_anything_but_a_handshake_error(garbage):
    assert refusal(dialler(), garbage) == MALFORMED
    assert refusal(listener(), garbage) == MALFORMED
