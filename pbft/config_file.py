"""`cluster.toml`: the public configuration as a file that people can read.

Reading is strict: every field is there, of its type, and no other; the cluster id written in the
file must be the digest of its contents (R7). So a file that was edited by hand, or that came
through damaged, is refused instead of giving a replica that nobody talks to.
"""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from pbft.config import ClientInfo, ClusterConfig, ConfigError, Parameters, ReplicaInfo
from pbft.config_check import check
from pbft.core.quorum import Quorum

MAX_FILE_BYTES = 1024 * 1024

HEADER = """\
# The public configuration of one cluster: the same file for every replica and every client.
# The cluster id is the digest of all of it, so an edited file is refused.
# To change anything, make a new cluster with `pbft keygen`.
"""

PARAMETER_NOTES = {
    "checkpoint_interval": "sequence numbers from one checkpoint to the next",
    "window": "sequence numbers between the watermarks; at least 2 * checkpoint_interval",
    "pipeline_depth": "sequence numbers that a primary keeps undecided at once",
    "max_batch_requests": "requests (signed bundles) in one batch",
    "max_batch_bytes": "bytes in one batch",
    "max_operation_bytes": "bytes of one operation",
    "max_result_bytes": "bytes of one operation's result; a larger result is refused",
    "max_bundle_operations": "operations in one bundle",
    "max_bundle_reads": "entries that one bundle may read; a KiB of a value counts as one more",
    "max_kept_result_bytes": "bytes of results kept for one client until it acknowledges them",
    "max_state_bytes": "bytes of the application's state, each entry with 256 more",
    "client_window": "bundles of one session in flight or not yet acknowledged",
    "sessions_per_client": "sessions; the least recently used one is evicted",
    "session_idle_ms": "milliseconds after which a session that is not used is evicted",
    "request_timeout_ms": "milliseconds that a request waits while nothing executes",
    "fairness_batches": "batches that may pass a waiting request by",
    "view_timeout_ms": "milliseconds of the first wait for a NEW-VIEW; doubles per failed view",
    "view_timeout_cap_ms": "milliseconds that this wait grows to at most",
    "heartbeat_interval_ms": "milliseconds between two heartbeats",
    "heartbeat_timeout_ms": "milliseconds of silence after which a primary is suspected",
    "clock_tolerance_ms": "milliseconds that a proposed time may be ahead of the local clock",
    "recovery_interval_ms": "milliseconds between two recoveries of one replica that get help",
}


class _Cluster(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    f: int
    lab: bool


class _Replica(Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    host: str
    port: int
    public_key: str


class _Client(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    public_key: str


_Parameters = msgspec.defstruct(
    "_Parameters",
    [(field, int) for field in Parameters.__struct_fields__],
    frozen=True,
    forbid_unknown_fields=True,
)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    cluster: _Cluster
    parameters: _Parameters  # type: ignore[valid-type]
    replicas: tuple[_Replica, ...]
    clients: tuple[_Client, ...] = ()


def load_cluster(path: str | Path) -> ClusterConfig:
    """The checked configuration in the file at `path`. Raises ConfigError."""
    try:
        return _parse(_read(Path(path)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def save_cluster(config: ClusterConfig, path: str | Path) -> None:
    """Write `config` to a new file at `path`. Raises ConfigError, also where the file exists."""
    check(config)
    text = to_toml(config).encode()
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} would be larger than {MAX_FILE_BYTES} bytes: too many clients")
    try:
        with Path(path).open("xb") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no such file (`pbft keygen` makes one)") from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(raw.decode())
    except RecursionError:
        raise ConfigError("the file is not valid TOML: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"the file is not valid TOML: {_one_line(error)}") from None


def _parse(tables: dict[str, Any]) -> ClusterConfig:
    try:
        file = msgspec.convert(tables, _File)
    except msgspec.ValidationError as error:
        reason = _one_line(error).replace("Object missing", "the file is missing", 1)
        raise ConfigError(reason.replace("Object", "the file", 1)) from None
    config = ClusterConfig(
        replicas=tuple(
            ReplicaInfo(r.id, r.host, r.port, _key(r.public_key, f"replica {r.id}"))
            for r in file.replicas
        ),
        clients=tuple(
            ClientInfo(c.name, _key(c.public_key, f"client {c.name!r}")) for c in file.clients
        ),
        parameters=Parameters(**asdict(file.parameters)),
        lab=file.cluster.lab,
    )
    check(config)
    _check_stated(file.cluster, config)
    return config


def _check_stated(stated: _Cluster, config: ClusterConfig) -> None:
    if stated.id != config.cluster_id.hex():
        raise ConfigError(
            f"cluster.toml was edited: its id is {stated.id[:64]!r} "
            f"but its contents give {config.cluster_id.hex()!r}; "
            "put the original back, or make a new cluster with `pbft keygen`"
        )
    if stated.f != (f := Quorum(len(config.replicas)).f):
        raise ConfigError(f"it says f = {stated.f}, but its replicas tolerate f = {f}")


def _key(text: str, owner: str) -> bytes:
    if len(text) != 64 or not text.isascii() or not text.isalnum():
        raise ConfigError(f"the public key of {owner} is not 64 hexadecimal digits")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f"the public key of {owner} is not 64 hexadecimal digits") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def to_toml(config: ClusterConfig) -> str:
    """The text of `cluster.toml`. Every string in a checked configuration is safe in quotes."""
    parts = [HEADER, _cluster_table(config), _parameters_table(config.parameters)]
    for replica in config.replicas:
        parts.append(
            f'[[replicas]]\nid = {replica.id}\nhost = "{replica.host}"\nport = {replica.port}\n'
            f'public_key = "{replica.public_key.hex()}"\n'
        )
    for client in config.clients:
        parts.append(
            f'[[clients]]\nname = "{client.name}"\npublic_key = "{client.public_key.hex()}"\n'
        )
    return "\n".join(parts)


def _cluster_table(config: ClusterConfig) -> str:
    n = len(config.replicas)
    return (
        f'[cluster]\nid = "{config.cluster_id.hex()}"\n'
        f"f = {Quorum(n).f}  # of the {n} replicas so many may be faulty\n"
        f"lab = {str(config.lab).lower()}  # true: faulty-node modes are allowed\n"
    )


def _parameters_table(parameters: Parameters) -> str:
    lines = [
        f"{name} = {value}  # {PARAMETER_NOTES[name]}" for name, value in asdict(parameters).items()
    ]
    return "\n".join(["[parameters]", *lines, ""])
