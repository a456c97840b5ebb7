"""Bytes to messages and back: strict, typed, canonical, bounded.

There is exactly one encoding of every message. What does not decode to a declared type, or does not
re-encode to the very same bytes, is refused, so two different byte strings are never one message.
Nothing is allocated beyond the bytes that were received: an envelope's body stays bytes until it is
asked for, and element counts are bounded by the types.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from crypto.digests import digest
from pbft.messages import AnyBody, AnyPacket, Batch, Envelope, Packet, ReplyLeaf, StateSummary

SIGNING_DOMAIN = b"pbft/1 message"


class MalformedMessage(Exception):
    """Received bytes are not a message; the text says why in a few words (no received data)."""


_bodies: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyBody)
_packets: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyPacket)

_encoder = msgspec.msgpack.Encoder()


def encode(value: msgspec.Struct) -> bytes:
    """The canonical MessagePack encoding (fields in order, shortest integers, no maps)."""
    return _encoder.encode(value)


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: bytes) -> Any:
    try:
        value = decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError) as error:
        raise MalformedMessage(_reason(error)) from None
    if encode(value) != raw:
        raise MalformedMessage("encoding is not canonical")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        return "not a declared message type"
    return "not MessagePack"


def decode_body(raw: bytes) -> AnyBody:
    """The body encoded by `raw`. Raises MalformedMessage."""
    body: AnyBody = _decode(_bodies, raw)
    return body


def decode_packet(raw: bytes) -> AnyPacket:
    """The packet encoded by `raw`. Raises MalformedMessage."""
    packet: AnyPacket = _decode(_packets, raw)
    return packet


def encode_packet(packet: Packet) -> bytes:
    """The bytes of one frame."""
    return encode(packet)


def signing_input(cluster_id: bytes, body: bytes) -> bytes:
    """What a signature covers beside SIGNING_DOMAIN: the cluster id and the body's digest (R7).

    Ed25519 hashes what it signs twice, with SHA-512; a long body is hashed once and faster here.
    """
    return cluster_id + sha256(body).digest()


def request_digest(request: Envelope) -> bytes:
    """The digest of a request together with its client's signature (R1)."""
    return digest(b"pbft/1 request", request.body, request.signature)


def batch_digest(time: int, requests: Iterable[bytes]) -> bytes:
    """The digest over a batch's proposed time (µs) and its ordered request digests (R1)."""
    return digest(b"pbft/1 batch", time.to_bytes(8, "big"), *requests)


def checkpoint_digest(summary: StateSummary) -> bytes:
    """The digest that CHECKPOINT messages carry for a state (R21)."""
    return digest(
        b"pbft/1 checkpoint",
        summary.application_root,
        summary.sessions_root,
        summary.time.to_bytes(8, "big"),
        summary.seq.to_bytes(8, "big"),
    )


def reply_leaf(leaf: ReplyLeaf) -> bytes:
    """The bytes of one leaf of a batch's reply tree."""
    return encode(leaf)


NULL_BATCH = Batch(time=0, requests=())
NULL_DIGEST = batch_digest(0, ())
