import os

import pytest
from hypothesis import given, strategies as st
from nacl.bindings import crypto_sign_open

from crypto.signing import Ed25519Signer, Ed25519Verifier, InvalidKey, check_public_key

L = 2**252 + 27742317777372353535851937790883648493
DOMAIN = b"speccheck"
VERIFIER = Ed25519Verifier()


def admitted(key):
    try:
        check_public_key(key)
    except InvalidKey:
        return False
    return True


def verifies(edge):
    return VERIFIER.verify(edge.key, DOMAIN, edge.message, edge.signature)


def test_a_signature_verifies_under_its_own_key_domain_and_message_only():
    signer, other = Ed25519Signer(b"s" * 32), Ed25519Signer(b"o" * 32)
    signature = signer.sign(b"domain", b"message")
    assert len(signature) == 64
    assert VERIFIER.verify(signer.public_key, b"domain", b"message", signature)
    assert not VERIFIER.verify(other.public_key, b"domain", b"message", signature)
    assert not VERIFIER.verify(signer.public_key, b"domaim", b"message", signature)
    assert not VERIFIER.verify(signer.public_key, b"domain", b"massage", signature)


@pytest.mark.rule("R7")
def test_bytes_cannot_move_between_domain_and_message():
    signer = Ed25519Signer(b"s" * 32)
    signature = signer.sign(b"ab", b"c")
    assert not VERIFIER.verify(signer.public_key, b"a", b"bc", signature)


@pytest.mark.rule("R7")
def test_bytes_cannot_move_between_signature_and_domain():
    signer = Ed25519Signer(b"s" * 32)
    signature = signer.sign(b"\x01d", b"m")
    assert not VERIFIER.verify(signer.public_key, b"d", b"m", signature + b"\x02")


def test_what_is_signed_is_the_length_of_the_domain_the_domain_and_the_message():
    signer = Ed25519Signer(b"s" * 32)
    signature = signer.sign(b"ab", b"c")
    assert crypto_sign_open(signature + b"\x02abc", signer.public_key) == b"\x02abc"


def test_a_signer_is_the_key_pair_of_rfc_8032_test_1():
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert Ed25519Signer(seed).public_key.hex() == public


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        Ed25519Signer(b"s" * 31)


def test_a_domain_of_more_than_255_bytes_is_refused():
    signer = Ed25519Signer(b"s" * 32)
    signature = signer.sign(b"d" * 255, b"")
    assert VERIFIER.verify(signer.public_key, b"d" * 255, b"", signature)
    assert not VERIFIER.verify(signer.public_key, b"d" * 256, b"", signature)
    with pytest.raises(ValueError, match="range"):
        signer.sign(b"d" * 256, b"")


@given(key=st.binary(max_size=70), domain=st.binary(max_size=300), signature=st.binary(max_size=70))
def test_no_key_domain_or_signature_makes_the_verifier_raise(key, domain, signature):
    assert VERIFIER.verify(key, domain, b"message", signature) is False


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_a_wrong_length_are_refused(length):
    signer = Ed25519Signer(b"s" * 32)
    signature = signer.sign(b"d", b"m")
    key = (signer.public_key + b"\0")[:length]
    assert not VERIFIER.verify(key, b"d", b"m", signature)
    with pytest.raises(InvalidKey, match="32 bytes"):
        check_public_key(key)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_signatures_of_a_wrong_length_are_refused(length):
    signer = Ed25519Signer(b"s" * 32)
    signature = (signer.sign(b"d", b"m") + b"\0")[:length]
    assert not VERIFIER.verify(signer.public_key, b"d", b"m", signature)


def test_generated_keys_are_admitted():
    assert all(admitted(Ed25519Signer(os.urandom(32)).public_key) for _ in range(20))


def test_the_edge_cases_are_what_a_lax_verifier_accepts(edges):
    assert [edge.number for edge in edges] == list(range(12))
    assert all(edge.cofactored for edge in edges)
    assert [edge.number for edge in edges if not edge.cofactorless] == [4, 5]
    assert len({(edge.key, edge.message, edge.signature) for edge in edges}) == 12


def test_without_the_key_check_only_the_edge_case_with_two_mixed_points_verifies(edges):
    assert [edge.number for edge in edges if verifies(edge)] == [3]


def test_only_the_two_edge_cases_with_a_large_scalar_have_an_admissible_key(edges):
    assert [edge.number for edge in edges if admitted(edge.key)] == [6, 7]


def test_both_layers_together_refuse_all_twelve_edge_cases(edges):
    assert not [edge.number for edge in edges if admitted(edge.key) and verifies(edge)]


def test_the_edge_cases_6_and_7_verify_once_their_scalar_is_reduced(edges):
    for edge in edges[6:8]:
        scalar = int.from_bytes(edge.signature[32:], "little") % L
        signature = edge.signature[:32] + scalar.to_bytes(32, "little")
        assert VERIFIER.verify(edge.key, DOMAIN, edge.message, signature)


def test_the_equation_is_checked_without_the_cofactor(mixed_r):
    assert admitted(mixed_r.key)
    assert mixed_r.cofactored
    assert not verifies(mixed_r)


def test_keys_with_any_small_order_part_are_not_admitted(mixed_order_keys):
    assert len(set(mixed_order_keys)) == 7
    assert not any(map(admitted, mixed_order_keys))


def test_keys_of_small_order_are_not_admitted_in_any_encoding(small_order_keys):
    assert len(set(small_order_keys)) == 14
    assert not any(map(admitted, small_order_keys))


def test_keys_that_are_not_on_the_curve_are_not_admitted():
    assert not admitted((2).to_bytes(32, "little"))


@given(st.integers(min_value=0, max_value=511))
def test_a_signature_with_any_bit_flipped_is_refused(bit):
    signer = Ed25519Signer(b"s" * 32)
    flipped = bytearray(signer.sign(b"d", b"m"))
    flipped[bit // 8] ^= 1 << bit % 8
    assert not VERIFIER.verify(signer.public_key, b"d", b"m", bytes(flipped))
