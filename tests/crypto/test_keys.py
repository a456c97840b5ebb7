import errno
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crypto.keys import KeyFileError, generate_seed, load_seed, load_signer, save_seed
from crypto.signing import Ed25519Signer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replica-0.pem"


def write_private(path, content):
    path.write_bytes(content)
    path.chmod(0o600)


def refusal(path, passphrase=None):
    with pytest.raises(KeyFileError) as refused:
        load_signer(path, passphrase)
    text = str(refused.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_saved_key_is_loaded_again(path):
    seed = generate_seed()
    save_seed(path, seed)
    assert load_seed(path) == seed
    assert load_signer(str(path)).public_key == Ed25519Signer(seed).public_key
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_generated_seeds_differ():
    assert generate_seed() != generate_seed()


def test_a_key_file_is_for_its_owner_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        save_seed(path, generate_seed())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_saving_overwrites_nothing(path):
    write_private(path, b"precious")
    with pytest.raises(KeyFileError, match="exists already"):
        save_seed(path, generate_seed())
    assert path.read_bytes() == b"precious"


def test_saving_does_not_follow_a_link_to_a_new_place(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists already"):
        save_seed(path, generate_seed())
    assert not (tmp_path / "elsewhere").exists()


def test_saving_into_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(KeyFileError, match="cannot write"):
        save_seed(tmp_path / "missing" / "key.pem", generate_seed())


def test_a_key_that_could_not_be_written_whole_is_removed(path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        save_seed(path, generate_seed())
    assert not path.exists()


def test_an_encrypted_key_is_loaded_with_its_passphrase_only(path):
    seed = generate_seed()
    save_seed(path, seed, b"open sesame")
    assert load_seed(path, b"open sesame") == seed
    assert "passphrase is wrong" in refusal(path, b"open barley")
    assert "give its passphrase" in refusal(path)
    assert "give its passphrase" in refusal(path, b"")


def test_an_empty_passphrase_encrypts_nothing(path):
    with pytest.raises(KeyFileError, match="empty"):
        save_seed(path, generate_seed(), b"")
    assert not path.exists()


def test_a_passphrase_for_a_plain_key_is_refused(path):
    save_seed(path, generate_seed())
    assert "give no passphrase" in refusal(path, b"open sesame")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
def test_a_key_file_that_group_or_others_can_access_is_refused(path, mode):
    save_seed(path, generate_seed())
    path.chmod(mode)
    assert f"chmod 600 {path}" in refusal(path)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), x25519.X25519PrivateKey.generate()]
)
def test_a_key_of_another_type_is_refused(path, key):
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "another type" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 99, b"-----BEGIN PRIVATE KEY-----\nAAAA"])
def test_garbage_is_refused(path, content):
    write_private(path, content)
    assert "not a PKCS#8 PEM private key" in refusal(path)


def test_a_truncated_encrypted_key_is_refused(path):
    save_seed(path, generate_seed(), b"open sesame")
    path.write_bytes(path.read_bytes()[:120])
    assert "damaged" in refusal(path, b"open sesame")


def test_a_missing_file_is_refused(path):
    assert "generate the keys first" in refusal(path)


def test_a_file_of_more_than_16_kib_is_refused(path):
    save_seed(path, generate_seed())
    pem = path.read_bytes()
    path.write_bytes(pem + b"\n" * (16 * 1024 - len(pem)))
    assert load_signer(path)
    path.write_bytes(pem + b"\n" * (16 * 1024 - len(pem) + 1))
    assert "too large" in refusal(path)


def test_a_directory_is_refused(tmp_path):
    assert "cannot read" in refusal(tmp_path)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(path):
    os.mkfifo(path, 0o600)
    assert "not a regular file" in refusal(path)
