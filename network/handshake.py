"""Mutual authentication by Ed25519 challenge, before anything else is said. No I/O.

    listener -> dialler   CHALLENGE   version, cluster id, listener's key, listener's nonce
    dialler -> listener   ANSWER      dialler's key, dialler's nonce, dialler's signature
    listener -> dialler   WELCOME     listener's signature

Both sign the same transcript (version, cluster id, both keys, both nonces) behind a byte that says
which of the two they are. Fresh nonces of both ends stop replays into another connection, the role
stops reflection, both keys under both signatures stop one end from being misled about whom the
other believes to talk to (Diffie, van Oorschot, Wiener 1992; ISO/IEC 9798-3). The dialler signs
only for the key that it expects. The listener, which anybody can reach, signs only for somebody who
has authenticated as an authorised key; so its WELCOME also says that the dialler was let in.

This authenticates the start of a connection and no more: somebody who controls the network can
still insert bytes later. Every later message is therefore signed in its own right, and a
connection's peer only says whose quotas its bytes are charged to. Where the network is not trusted
that far, run it inside a VPN.
"""

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from crypto.signing import InvalidKey, Signer, Verifier, check_public_key

VERSION = 2
SIGNING_DOMAIN = b"pbft/1 handshake"
NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 512

MALFORMED = "handshake-malformed"
WRONG_VERSION = "handshake-wrong-version"
WRONG_CLUSTER = "handshake-wrong-cluster"
WRONG_IDENTITY = "handshake-wrong-identity"
UNAUTHORISED = "handshake-unauthorised"
BAD_SIGNATURE = "handshake-bad-signature"

_DIALLER, _LISTENER = b"D", b"L"

_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]


class HandshakeError(Exception):
    """The other end is not whom it should be; `reason` is one of the names above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class _Challenge(_Message, frozen=True, tag=1):
    version: Annotated[int, Meta(ge=0, le=255)]
    cluster_id: _Bytes32
    public_key: _Bytes32
    nonce: _Bytes32


class _Answer(_Message, frozen=True, tag=2):
    public_key: _Bytes32
    nonce: _Bytes32
    signature: _Bytes64


class _Welcome(_Message, frozen=True, tag=3):
    signature: _Bytes64


class Handshake(Protocol):
    """One end's part: send `opening`, then what `receive` returns, until `done`."""

    opening: bytes | None
    peer: bytes  # the other end's public key; authentic once `done`
    done: bool

    def receive(self, frame: bytes) -> bytes | None:
        """The answer to a received frame, if there is one. Raises HandshakeError: give up."""
        ...


class DiallerHandshake:
    """The end that opened the connection, to the holder of one public key."""

    opening: bytes | None = None

    def __init__(
        self, signer: Signer, verifier: Verifier, cluster_id: bytes, expected: bytes, nonce: bytes
    ) -> None:
        """`cluster_id`, the `expected` public key and the fresh random `nonce` have 32 bytes."""
        self.peer = expected
        self.done = False
        self._signer = signer
        self._verifier = verifier
        self._cluster_id = cluster_id
        self._nonce = nonce
        self._transcript: bytes | None = None

    def receive(self, frame: bytes) -> bytes | None:
        """The answer to a received frame, if there is one. Raises HandshakeError: give up."""
        if self.done:
            raise HandshakeError(MALFORMED)
        if self._transcript is None:
            return self._answer(_decode(_challenges, frame))
        welcome = _decode(_welcomes, frame)
        _check(self._verifier, self.peer, _LISTENER + self._transcript, welcome.signature)
        self.done = True
        return None

    def _answer(self, challenge: _Challenge) -> bytes:
        if challenge.version != VERSION:
            raise HandshakeError(WRONG_VERSION)
        if challenge.cluster_id != self._cluster_id:
            raise HandshakeError(WRONG_CLUSTER)
        if challenge.public_key != self.peer:
            raise HandshakeError(WRONG_IDENTITY)
        me = self._signer.public_key
        self._transcript = _transcript(
            self._cluster_id, me, self.peer, self._nonce, challenge.nonce
        )
        signature = self._signer.sign(SIGNING_DOMAIN, _DIALLER + self._transcript)
        return _encoder.encode(_Answer(me, self._nonce, signature))


class ListenerHandshake:
    """The end that accepted the connection, from the holder of any authorised key."""

    def __init__(
        self,
        signer: Signer,
        verifier: Verifier,
        cluster_id: bytes,
        authorize: Callable[[bytes], bool],
        nonce: bytes,
    ) -> None:
        """`cluster_id` and the fresh random `nonce` have 32 bytes."""
        me = signer.public_key
        self.opening: bytes | None = _encoder.encode(_Challenge(VERSION, cluster_id, me, nonce))
        self.peer = b""
        self.done = False
        self._signer = signer
        self._verifier = verifier
        self._cluster_id = cluster_id
        self._authorize = authorize
        self._nonce = nonce

    def receive(self, frame: bytes) -> bytes | None:
        """The answer to a received frame. Raises HandshakeError: give up."""
        if self.done:
            raise HandshakeError(MALFORMED)
        answer = _decode(_answers, frame)
        self._admit(answer.public_key)
        transcript = _transcript(
            self._cluster_id,
            answer.public_key,
            self._signer.public_key,
            answer.nonce,
            self._nonce,
        )
        _check(self._verifier, answer.public_key, _DIALLER + transcript, answer.signature)
        self.peer = answer.public_key
        self.done = True
        return _encoder.encode(_Welcome(self._signer.sign(SIGNING_DOMAIN, _LISTENER + transcript)))

    def _admit(self, public_key: bytes) -> None:
        if not self._authorize(public_key):
            raise HandshakeError(UNAUTHORISED)
        try:
            check_public_key(public_key)
        except InvalidKey:
            raise HandshakeError(UNAUTHORISED) from None


_M = TypeVar("_M", bound=_Message)

_encoder = msgspec.msgpack.Encoder()
_challenges = msgspec.msgpack.Decoder(_Challenge)
_answers = msgspec.msgpack.Decoder(_Answer)
_welcomes = msgspec.msgpack.Decoder(_Welcome)


def _transcript(
    cluster_id: bytes, dialler: bytes, listener: bytes, dialler_nonce: bytes, listener_nonce: bytes
) -> bytes:
    # Every piece has a fixed length, so the pieces cannot run into one another.
    return bytes((VERSION,)) + cluster_id + dialler + listener + dialler_nonce + listener_nonce


def _check(verifier: Verifier, public_key: bytes, transcript: bytes, signature: bytes) -> None:
    if not verifier.verify(public_key, SIGNING_DOMAIN, transcript, signature):
        raise HandshakeError(BAD_SIGNATURE)


def _decode(decoder: "msgspec.msgpack.Decoder[_M]", frame: bytes) -> _M:
    if len(frame) > MAX_HANDSHAKE_BYTES:
        raise HandshakeError(MALFORMED)
    try:
        message = decoder.decode(frame)
    except _UNDECODABLE:
        raise HandshakeError(MALFORMED) from None
    if _encoder.encode(message) != frame:
        raise HandshakeError(MALFORMED)
    return message


_UNDECODABLE: tuple[type[Any], ...] = (
    msgspec.DecodeError,
    RecursionError,
    OverflowError,
    UnicodeDecodeError,
)
