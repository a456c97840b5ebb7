"""A stand-in for Ed25519 that lives in the simulator: keyed BLAKE2b, whose keys a registry knows.

It keeps what the protocol relies on (nobody signs for another, signing is deterministic) and is
some fifty times faster. At least one seed in twenty uses the real thing.
"""

from hashlib import blake2b

from crypto.digests import digest


class KeyedHashSigner:
    """Signs with a secret; its public key is the secret's digest."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._public_key = digest(b"pbft/1 simulated key", secret)

    @property
    def public_key(self) -> bytes:
        """The name under which the registry knows the secret (32 bytes)."""
        return self._public_key

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """64 bytes over domain and message."""
        return _tag(self._secret, domain, message)


class KeyedHashRegistry:
    """Verifies what any registered signer has signed."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    def signer(self, secret: bytes) -> KeyedHashSigner:
        """A signer that this registry can verify."""
        signer = KeyedHashSigner(secret)
        self._secrets[signer.public_key] = secret
        return signer

    def verify(self, public_key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature is that key's; False for keys that are not registered."""
        secret = self._secrets.get(public_key)
        return secret is not None and _tag(secret, domain, message) == signature


def _tag(secret: bytes, domain: bytes, message: bytes) -> bytes:
    return blake2b(domain + b"\0" + message, digest_size=64, key=secret).digest()
