"""Greetings with every field wrong in every way: refused as malformed, before any signature."""

import pytest
from misfits import other_encodings, other_strings, pack, unpack, wrong_fields, wrong_shapes

from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.handshake import (
    BAD_SIGNATURE,
    MALFORMED,
    MAX_HANDSHAKE_BYTES,
    UNAUTHORISED,
    DiallerHandshake,
    HandshakeError,
    ListenerHandshake,
)

ALICE, BOB = Ed25519Signer(b"a" * 32), Ed25519Signer(b"b" * 32)
CLUSTER = b"c" * 32
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


class Counting:
    """A verifier that counts how often it is asked."""

    def __init__(self):
        self.asked = 0
        self._inner = Ed25519Verifier()

    def verify(self, *arguments):
        self.asked += 1
        return self._inner.verify(*arguments)


VERIFIER = Counting()


def listener(authorised=(BOB.public_key,)):
    return ListenerHandshake(ALICE, VERIFIER, CLUSTER, authorised.__contains__, b"n" * 32)


def dialler():
    return DiallerHandshake(BOB, VERIFIER, CLUSTER, ALICE.public_key, b"m" * 32)


def before_challenge():
    return dialler()


def before_answer():
    return listener()


def before_welcome():
    bob = dialler()
    bob.receive(listener().opening)
    return bob


CHALLENGE = listener().opening
ANSWER = dialler().receive(CHALLENGE)
WELCOME = listener().receive(ANSWER)
TURNS = {
    "challenge": (before_challenge, CHALLENGE),
    "answer": (before_answer, ANSWER),
    "welcome": (before_welcome, WELCOME),
}
each_turn = pytest.mark.parametrize(("end", "message"), TURNS.values(), ids=TURNS)


def refusal(end, frame, verifications=0):
    asked = VERIFIER.asked
    with pytest.raises(HandshakeError) as raised:
        end.receive(frame)
    assert not end.done
    assert VERIFIER.asked - asked == verifications
    return raised.value.reason


@each_turn
def test_the_greeting_itself_is_taken(end, message):
    end().receive(message)


@each_turn
def test_a_field_of_another_type_range_or_length_is_refused(end, message):
    """Booleans and negatives for the version, keys of 0, 31, 33, signatures of 0, 63, 65 bytes."""
    for raw in wrong_fields(message):
        assert refusal(end(), raw) == MALFORMED


@each_turn
def test_unknown_types_and_missing_or_additional_fields_are_refused(end, message):
    for raw in wrong_shapes(message):
        assert refusal(end(), raw) == MALFORMED


@each_turn
def test_a_greeting_that_is_not_canonical_is_refused(end, message):
    for raw in (*other_encodings(message), *other_strings(message)):
        assert refusal(end(), raw) == MALFORMED


@each_turn
def test_the_greetings_of_the_other_turns_are_refused(end, message):
    for _, other in TURNS.values():
        if other != message:
            assert refusal(end(), other) == MALFORMED


@each_turn
@pytest.mark.parametrize(
    "raw", [b"\x91" * MAX_HANDSHAKE_BYTES, b"\x81\xc0" * 200, b"\xdd\xff\xff\xff\xff"]
)
def test_depth_and_claimed_lengths_are_refused(end, message, raw):
    assert refusal(end(), raw) == MALFORMED
    assert refusal(end(), message[:2] + raw[: MAX_HANDSHAKE_BYTES - 2]) == MALFORMED


def test_an_unauthorised_key_costs_no_signature_check():
    assert refusal(listener(authorised=()), ANSWER) == UNAUTHORISED


def test_a_malleated_signature_does_not_let_anybody_in():
    fields = unpack(ANSWER)
    signature = fields[3]
    s = int.from_bytes(signature[32:], "little") + ORDER
    fields[3] = signature[:32] + s.to_bytes(32, "little")
    assert refusal(listener(), pack(fields), verifications=1) == BAD_SIGNATURE


@pytest.mark.parametrize(
    "key",
    [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32],
    ids=["order 4", "order 1", "order 2", "not canonical"],
)
def test_a_weak_key_does_not_get_in_although_it_is_authorised(key):
    fields = unpack(ANSWER)
    fields[1] = key
    assert refusal(listener(authorised=(key,)), pack(fields)) == UNAUTHORISED
