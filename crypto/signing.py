"""Ed25519 signatures with domain separation, over libsodium (PyNaCl).

What is signed is ``len(domain) as one byte ‖ domain ‖ message``, so that a signature made for one
purpose is never valid for another.

RFC 8032 leaves edge cases open (Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs", SSR
2020). Here they are closed in two layers:

- `check_public_key` is asked once, when a key is admitted: it refuses wrong lengths, non-canonical
  encodings, points off the curve, of small order, and with a small-order part ("mixed order").
- `Ed25519Verifier` is asked for every signature: it refuses S >= L, small-order and non-canonical A
  and R, and checks the equation without the cofactor, on the encoding of R.

So for an admitted key only signatures that satisfy RFC 8032's equation strictly are valid, and
nobody but the key's holder can turn one valid signature into another.
"""

from typing import Protocol

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64
MAX_DOMAIN_BYTES = 255


class InvalidKey(ValueError):
    """A public key that must not be admitted; the text says why."""


class Signer(Protocol):
    """Holds one private key."""

    @property
    def public_key(self) -> bytes:
        """The public key (32 bytes) under which signatures verify."""
        ...

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """A signature (64 bytes) over `message` in `domain` (at most 255 bytes)."""
        ...


class Verifier(Protocol):
    """Checks signatures of any key."""

    def verify(self, public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is the key's over `message` in `domain`. Never raises."""
        ...


class Ed25519Signer:
    """Signs with the private key that RFC 8032 derives from a seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        """Raises ValueError for a seed of another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._public_key, self._secret_key = crypto_sign_seed_keypair(seed)

    @property
    def public_key(self) -> bytes:
        """The public key (32 bytes)."""
        return self._public_key

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """A signature (64 bytes). Raises ValueError for a domain of more than 255 bytes."""
        signed = crypto_sign(bytes((len(domain),)) + domain + message, self._secret_key)
        return signed[:SIGNATURE_BYTES]


class Ed25519Verifier:
    """Verifies with the strict equation; see the top of this file for what is refused."""

    def verify(self, public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is the key's over `message` in `domain`."""
        # libsodium reads exactly 32 and 64 bytes, whatever it is given.
        if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        if len(domain) > MAX_DOMAIN_BYTES:
            return False
        try:
            crypto_sign_open(signature + bytes((len(domain),)) + domain + message, public_key)
        except BadSignatureError:
            return False
        return True


def check_public_key(key: bytes) -> None:
    """Raises InvalidKey unless `key` canonically encodes a point of prime order (32 bytes)."""
    if len(key) != PUBLIC_KEY_BYTES:
        raise InvalidKey(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(key)}")
    if not crypto_core_ed25519_is_valid_point(key):
        raise InvalidKey("the public key is not a canonical point of prime order on Curve25519")
