"""Private key files: Ed25519, PKCS#8 PEM (RFC 5958, RFC 8410), readable by their owner alone."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from crypto.signing import SEED_BYTES, Ed25519Signer

MAX_KEY_FILE_BYTES = 16 * 1024
OWNER_ONLY = 0o600
_ENCRYPTED_PEM = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class KeyFileError(Exception):
    """A key file cannot be used or written; the text is one sentence that says what to do."""


def generate_seed() -> bytes:
    """A fresh Ed25519 private key (a seed of 32 bytes) from the operating system's generator."""
    return os.urandom(SEED_BYTES)


def save_seed(path: Path | str, seed: bytes, passphrase: bytes | None = None) -> None:
    """Write the private key to a new file, mode 0600. Raises KeyFileError; overwrites nothing."""
    pem = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase)
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        raise KeyFileError(f"{path} exists already: move it away or choose another name") from None
    except OSError as error:
        raise KeyFileError(_cannot("write", path, error)) from None
    _write_durably(path, descriptor, pem)


def load_seed(path: Path | str, passphrase: bytes | None = None) -> bytes:
    """The private key (a seed of 32 bytes) in the file at `path`. Raises KeyFileError."""
    key = _parse(path, _read_guarded(path), passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another type: use an Ed25519 private key")
    return key.private_bytes_raw()


def load_signer(path: Path | str, passphrase: bytes | None = None) -> Ed25519Signer:
    """A signer with the private key in the file at `path`. Raises KeyFileError."""
    return Ed25519Signer(load_seed(path, passphrase))


def _encryption(passphrase: bytes | None) -> KeySerializationEncryption:
    if passphrase is None:
        return NoEncryption()
    if not passphrase:
        raise KeyFileError("the passphrase is empty: give one, or none at all")
    return BestAvailableEncryption(passphrase)


def _write_durably(path: Path | str, descriptor: int, content: bytes) -> None:
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        os.unlink(path)  # half a key must not stand in the way of the next attempt
        raise KeyFileError(_cannot("write", path, error)) from None


def _read_guarded(path: Path | str) -> bytes:
    # O_NONBLOCK: opening a named pipe must not wait for a writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check_status(path, os.fstat(descriptor))
            content = file.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyFileError(f"{path} does not exist: generate the keys first") from None
    except OSError as error:
        raise KeyFileError(_cannot("read", path, error)) from None
    if len(content) > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} is too large for a private key: give the right file")
    return content


def _check_status(path: Path | str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a regular file: give the path of a private key")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"others may access the private key {path}: run chmod 600 {path}")


def _parse(path: Path | str, pem: bytes, passphrase: bytes | None) -> object:
    encrypted = _ENCRYPTED_PEM in pem
    if encrypted and not passphrase:
        raise KeyFileError(f"{path} is encrypted: give its passphrase")
    if passphrase is not None and not encrypted:
        raise KeyFileError(f"{path} is not an encrypted private key: give no passphrase for it")
    try:
        return load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise KeyFileError(
                f"{path} cannot be decrypted: the passphrase is wrong or the file is damaged"
            ) from None
        raise KeyFileError(f"{path} is not a PKCS#8 PEM private key: give the right file") from None


def _cannot(verb: str, path: Path | str, error: OSError) -> str:
    reason = error.strerror or "unknown error"
    return f"cannot {verb} {path} ({reason}): check the path and its permissions"
