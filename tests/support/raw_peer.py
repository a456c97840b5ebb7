"""Sockets in the hands of somebody who need not keep to the rules."""

import contextlib
import json
import socket
from itertools import count
from typing import Any

from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.framing import FrameDecoder, encode_frame
from network.handshake import DiallerHandshake
from pbft.codec import (
    SIGNING_DOMAIN,
    decode_body,
    decode_packet,
    encode,
    encode_packet,
    signing_input,
)
from pbft.messages import Envelope, StatusQuery, StatusReport

SECONDS = 20.0


class RawPeer:
    """A connection to a listening node, as anybody could make it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, SECONDS)
        self._decoder = FrameDecoder(1 << 24)

    def send(self, data: bytes) -> None:
        """Any bytes; what no longer gets out is lost."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def frame(self) -> bytes | None:
        """The next frame; None at the end of the stream."""
        while (frame := self._decoder.next_frame()) is None:
            data = self._read()
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def closed(self) -> bool:
        """Read on until the other end hangs up, which it must."""
        while self._read():
            pass
        return True

    def _read(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionError:
            return b""

    def authenticate(
        self, signer: Ed25519Signer, expected: bytes, cluster: bytes, nonce: bytes = b"n" * 32
    ) -> bytes:
        """Shake hands as an honest dialler would; what was sent for it."""
        handshake = DiallerHandshake(signer, Ed25519Verifier(), cluster, expected, nonce)
        challenge = self.frame()
        assert challenge is not None
        answer = handshake.receive(challenge)
        assert answer is not None
        self.send(encode_frame(answer))
        welcome = self.frame()
        assert welcome is not None
        handshake.receive(welcome)
        return answer

    def send_until_closed(self, data: bytes) -> None:
        """Over and over, as fast as it goes."""
        with contextlib.suppress(OSError):
            while True:
                self.socket.sendall(data)

    def shut(self) -> None:
        """Hang up, also on a thread that is sending."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class Bystander:
    """An honest client, which asks how the node is and expects an answer."""

    def __init__(self, peer: RawPeer, signer: Ed25519Signer, cluster: bytes) -> None:
        self._peer, self._signer, self._cluster = peer, signer, cluster
        self._numbers = count(1)

    def report(self) -> dict[str, Any]:
        """What the node says of itself, and the number of the question."""
        query = StatusQuery(self._signer.public_key, next(self._numbers))
        raw = encode(query)
        signature = self._signer.sign(SIGNING_DOMAIN, signing_input(self._cluster, raw))
        self._peer.send(encode_frame(encode_packet(Envelope(raw, signature))))
        while (frame := self._peer.frame()) is not None:
            packet = decode_packet(frame)
            body = decode_body(packet.body) if isinstance(packet, Envelope) else None
            if isinstance(body, StatusReport) and body.nonce == query.nonce:
                report: dict[str, Any] = json.loads(body.report)
                return report | {"nonce": query.nonce}
        raise AssertionError("the node has hung up on an honest client")

    def counter(self, reason: str) -> int:
        """How often the node has counted `reason`."""
        return int(self.report()["counters"].get(reason, 0))

    def sees(self, reason: str, least: int) -> bool:
        """Ask until the counter has reached `least`; each question is answered by a turn."""
        return any(self.counter(reason) >= least for _ in range(2000))
