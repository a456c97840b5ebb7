"""Bytes that are no message, in every way that a field can be wrong.

Each body is properly signed by its sender and comes over the sender's own channel: nothing but the
encoding is wrong, and it is refused before any signature is looked at.
"""

import tracemalloc

import pytest
from misfits import other_encodings, other_strings, pack, unpack, wrong_fields, wrong_shapes
from target import Target, frame

from pbft.codec import decode_body, decode_packet, encode
from pbft.messages import AnyPacket, Envelope

TARGET = Target()
BODIES = {type(body).__name__: body for body in TARGET.bodies()}
PACKETS = {type(packet).__name__: packet for packet in TARGET.packets()}

each_body = pytest.mark.parametrize("name", BODIES)
each_packet = pytest.mark.parametrize("name", PACKETS)


def refuse_body(raw, body):
    envelope = TARGET.seal(TARGET.signer_of(body), raw)
    return TARGET.refuse(frame(envelope), TARGET.peer_of(body))


@each_body
def test_the_example_itself_is_no_malformed_message(name):
    assert decode_body(encode(BODIES[name])) == BODIES[name]


@each_packet
def test_the_example_packet_itself_is_no_malformed_message(name):
    assert decode_packet(encode(PACKETS[name])) == PACKETS[name]


def test_there_is_an_example_of_everything():
    assert {type(packet) for packet in PACKETS.values()} == set(AnyPacket.__args__)
    assert len(BODIES) == len(decode_body.__annotations__["return"].__args__)


@each_body
def test_a_field_of_another_type_or_out_of_range_is_refused(name):
    for raw in wrong_fields(encode(BODIES[name])):
        assert refuse_body(raw, BODIES[name]).startswith("malformed: ")


@each_body
def test_unknown_types_and_missing_or_additional_fields_are_refused(name):
    for raw in wrong_shapes(encode(BODIES[name])):
        assert refuse_body(raw, BODIES[name]).startswith("malformed: ")


@each_body
def test_a_body_that_is_not_canonical_is_refused(name):
    good = encode(BODIES[name])
    for raw in (*other_encodings(good), *other_strings(good)):
        reason = refuse_body(raw, BODIES[name])
        assert reason.startswith(("malformed: ", "certificate: "))  # or of what is inside


@each_packet
def test_a_packet_s_field_of_another_type_or_length_is_refused(name):
    for raw in wrong_fields(encode(PACKETS[name])):
        assert TARGET.refuse(raw, 2).startswith("malformed: ")


@each_packet
def test_packets_of_unknown_type_shape_or_encoding_are_refused(name):
    raw = encode(PACKETS[name])
    for bad in (*wrong_shapes(raw), *other_encodings(raw)):
        assert TARGET.refuse(bad, 2).startswith("malformed: ")


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_than_64_is_refused(length):
    raw = pack([0, encode(BODIES["Prepare"]), bytes(length)])
    assert TARGET.refuse(raw, 2) == "malformed: not a declared message type"


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_client_s_key_of_another_length_than_32_is_refused(length):
    fields = unpack(encode(BODIES["StatusQuery"]))
    fields[1] = bytes(length)
    assert refuse_body(pack(fields), BODIES["StatusQuery"]).startswith("malformed: ")


NESTED = {
    "arrays": b"\x91" * 200_000,
    "wide arrays": b"\xdc\x00\x01" * 100_000,
    "maps": b"\x81\xc0" * 100_000,
    "arrays in the body": encode(Envelope(b"\x91" * 200_000, bytes(64))),
    "arrays in a field": b"\x93\x00" + b"\x91" * 200_000,
    "arrays in a batch": b"\x93\x02\x01\x92\x05" + b"\x91" * 200_000,
}
CLAIMS = {
    "an array of 2^32-1": b"\xdd\xff\xff\xff\xff",
    "a map of 2^32-1": b"\xdf\xff\xff\xff\xff",
    "a string of 2^32-1": b"\xdb\xff\xff\xff\xff",
    "bytes of 2^32-1": b"\xc6\xff\xff\xff\xff",
    "an extension of 2^32-1": b"\xc9\xff\xff\xff\xff\x01",
    "a body of 2^32-1": b"\x93\x00\xc6\xff\xff\xff\xff",
    "a batch of 2^32-1": b"\x93\x02\x01\x92\x05\xdd\xff\xff\xff\xff",
    "a batch of 4096": b"\x93\x02\x01\x92\x05\xdc\x10\x00",
    "a proof of 2^32-1": b"\x92\x05\xdd\xff\xff\xff\xff",
    "a proof of 128": b"\x92\x05\xdc\x00\x80",
}


@pytest.mark.parametrize("raw", NESTED.values(), ids=NESTED)
def test_depth_is_refused(raw):
    assert TARGET.refuse(raw, 2).startswith("malformed: ")


@pytest.mark.parametrize("raw", CLAIMS.values(), ids=CLAIMS)
def test_nothing_is_allocated_for_lengths_that_are_only_claimed(raw):
    tracemalloc.start()
    try:
        assert TARGET.refuse(raw, 2).startswith("malformed: ")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_all_of_this_makes_only_a_few_counters():
    """A counter's name never holds what a peer has chosen."""
    reasons = [reason for reason in TARGET.counters if reason.startswith("malformed")]
    assert set(reasons) <= {
        "malformed: not MessagePack",
        "malformed: not a declared message type",
        "malformed: encoding is not canonical",
    }
