"""Private keys of a cluster's members: loaded only where they match `cluster.toml`."""

from pathlib import Path

from crypto.keys import load_signer
from crypto.signing import Ed25519Signer
from pbft.config import ClusterConfig, ConfigError

CLUSTER_FILE = "cluster.toml"
SHOWN_CLIENTS = 4


def replica_key_file(keys_dir: str | Path, replica: int) -> Path:
    """Where `pbft keygen` puts the private key of a replica."""
    return Path(keys_dir) / f"replica-{replica}.pem"


def client_key_file(keys_dir: str | Path, name: str) -> Path:
    """Where `pbft keygen` puts the private key of a client."""
    return Path(keys_dir) / f"{name}.pem"


def load_replica_signer(config: ClusterConfig, keys_dir: str | Path, replica: int) -> Ed25519Signer:
    """The signer of a member. Raises ConfigError for a stranger or a key that is not its own, and
    KeyFileError for a file that cannot be used."""
    if not 0 <= replica < len(config.replicas):
        last = len(config.replicas) - 1
        raise ConfigError(f"there is no replica {replica} in cluster.toml, only 0 to {last}")
    path = replica_key_file(keys_dir, replica)
    return _matching(path, config.replicas[replica].public_key, f"replica {replica}")


def load_client_signer(config: ClusterConfig, keys_dir: str | Path, name: str) -> Ed25519Signer:
    """The signer of an admitted client. Raises as `load_replica_signer` does."""
    for client in config.clients:
        if client.name == name:
            return _matching(client_key_file(keys_dir, name), client.public_key, name)
    known = ", ".join(client.name for client in config.clients[:SHOWN_CLIENTS])
    more = ", ..." if len(config.clients) > SHOWN_CLIENTS else ""
    raise ConfigError(
        f"there is no client {name!r} in cluster.toml, which has {known or 'none'}{more}"
    )


def _matching(path: Path, public_key: bytes, owner: str) -> Ed25519Signer:
    signer = load_signer(path)
    if signer.public_key != public_key:
        raise ConfigError(
            f"{path} is not the key that cluster.toml has for {owner}: "
            "use the two files that `pbft keygen` made together"
        )
    return signer
