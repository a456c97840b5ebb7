"""What makes a cluster's configuration acceptable: each check fails with one clear sentence."""

import re
from collections.abc import Iterable

from msgspec.structs import asdict

from crypto.signing import check_public_key
from network.limits import Limits
from pbft.config import ClusterConfig, ConfigError, Parameters
from pbft.core.quorum import Quorum
from pbft.messages import (
    MAX_BATCH_REQUESTS,
    MAX_BUNDLE_OPERATIONS,
    MAX_REPLICAS,
    MAX_WINDOW,
)

MIN_REPLICAS = 4
MAX_FRAME_BYTES = Limits().max_frame_bytes
LARGEST_PAYLOAD = MAX_FRAME_BYTES // 2  # in a frame with much beside it
VOTE_BYTES = 128  # of a signed vote inside a certificate
TOO_FEW = "PBFT needs at least 4 replicas to tolerate 1 fault (n >= 3f+1)"

_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]{0,252}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_MOST = 2**31 - 1
_LIMITS = {
    "window": MAX_WINDOW,
    "max_batch_requests": MAX_BATCH_REQUESTS,
    "max_bundle_operations": MAX_BUNDLE_OPERATIONS,
    "max_state_bytes": 2**40,
}


def check(config: ClusterConfig) -> None:
    """Raises ConfigError for a configuration with which no cluster may run."""
    check_replica_count(len(config.replicas))
    _check_replicas(config)
    _check_clients(config)
    _check_keys(config)
    check_parameters(config.parameters)
    _check_new_view_fits(len(config.replicas), config.parameters.window)


def check_replica_count(n: int) -> None:
    """Raises ConfigError unless MIN_REPLICAS <= n <= MAX_REPLICAS."""
    if n < MIN_REPLICAS:
        raise ConfigError(f"{TOO_FEW}, but {n} were given")
    if n > MAX_REPLICAS:
        raise ConfigError(f"a cluster has at most {MAX_REPLICAS} replicas, but {n} were given")


def check_parameters(parameters: Parameters) -> None:
    """Raises ConfigError for a value out of range, or for values that contradict each other."""
    values: dict[str, int] = asdict(parameters)
    for name, value in values.items():
        most = _LIMITS.get(name, _MOST)
        if not 1 <= value <= most:
            raise ConfigError(f"parameter {name} must be between 1 and {most}, but is {value}")
    if parameters.window < 2 * parameters.checkpoint_interval:  # R10
        raise ConfigError("parameter window must be at least 2 * checkpoint_interval")
    _not_above(values, "pipeline_depth", "window")
    _not_above(values, "max_operation_bytes", "max_batch_bytes")
    _not_above(values, "max_operation_bytes", "max_state_bytes")
    _not_above(values, "view_timeout_ms", "view_timeout_cap_ms")
    for name in ("max_batch_bytes", "max_result_bytes"):
        if values[name] > LARGEST_PAYLOAD:
            raise ConfigError(
                f"parameter {name} must be at most {LARGEST_PAYLOAD}, so that it fits into a frame"
            )
    if parameters.heartbeat_timeout_ms <= parameters.heartbeat_interval_ms:
        raise ConfigError("parameter heartbeat_timeout_ms must be above heartbeat_interval_ms")


def largest_window(n: int) -> int:
    """A NEW-VIEW may carry a prepared certificate for all of the window, q times (O4.4)."""
    q = Quorum(n).q
    return MAX_FRAME_BYTES // (q * q * VOTE_BYTES)


def _check_new_view_fits(n: int, window: int) -> None:
    most = largest_window(n)
    if window > most:
        raise ConfigError(
            f"parameter window must be at most {most} with {n} replicas, so that a NEW-VIEW "
            f"fits into a frame (and checkpoint_interval at most {most // 2})"
        )


def _not_above(values: dict[str, int], lower: str, upper: str) -> None:
    if values[lower] > values[upper]:
        raise ConfigError(f"parameter {lower} must not be above {upper}")


def _check_replicas(config: ClusterConfig) -> None:
    for index, replica in enumerate(config.replicas):
        if replica.id != index:
            raise ConfigError(
                f"replica ids must be 0 to {len(config.replicas) - 1}, each once and in order, "
                f"but number {index} in the list has id {replica.id}"
            )
        if not _HOST.fullmatch(replica.host) or ".." in replica.host:
            raise ConfigError(f"replica {index} has an invalid host name or address")
        if not 1 <= replica.port <= 65535:
            raise ConfigError(f"replica {index} has port {replica.port}, not one of 1 to 65535")
    addresses = (f"{replica.host.lower()}:{replica.port}" for replica in config.replicas)
    _refuse_repeated(addresses, "address")


def _check_clients(config: ClusterConfig) -> None:
    for index, client in enumerate(config.clients):
        if not _NAME.fullmatch(client.name):
            raise ConfigError(
                f"client number {index} has an invalid name: "
                "it takes 1 to 64 letters, digits, dots, hyphens and underscores"
            )
    _refuse_repeated((client.name for client in config.clients), "client name")


def _check_keys(config: ClusterConfig) -> None:
    owners = [(f"replica {replica.id}", replica.public_key) for replica in config.replicas]
    owners += [(f"client {client.name}", client.public_key) for client in config.clients]
    for owner, key in owners:
        try:
            check_public_key(key)
        except ValueError as error:
            raise ConfigError(f"the public key of {owner} is invalid: {error}") from None
    _refuse_repeated((key.hex() for _, key in owners), "public key")


def _refuse_repeated(values: Iterable[str], what: str) -> None:
    seen: dict[str, None] = {}
    for value in values:
        if value in seen:
            raise ConfigError(f"the {what} {value} appears twice")
        seen[value] = None
