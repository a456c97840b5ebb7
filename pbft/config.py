"""The public configuration of a cluster: who its members are and which parameters they share.

`cluster.toml` holds it; the cluster id is its digest in canonical form, so that replicas which are
configured differently do not even talk to each other (R7).
"""

from functools import cached_property

from msgspec import Struct

from crypto.digests import digest
from pbft.codec import encode
from pbft.messages import PublicKey


class ConfigError(Exception):
    """A configuration or key with which nothing may run; the text is one sentence for the user."""


class ReplicaInfo(Struct, frozen=True, array_like=True):
    """One replica: where it listens and the Ed25519 key that it signs with."""

    id: int
    host: str
    port: int
    public_key: PublicKey


class ClientInfo(Struct, frozen=True, array_like=True):
    """One admitted client."""

    name: str
    public_key: PublicKey


class Parameters(Struct, frozen=True, array_like=True):
    """What all replicas must agree on. Times are in milliseconds, sizes in bytes."""

    checkpoint_interval: int = 64  # K: sequence numbers between checkpoints
    window: int = 256  # L: sequence numbers between the watermarks; at least 2 K (R10)
    pipeline_depth: int = 4  # sequence numbers that a primary keeps undecided at once
    max_batch_requests: int = 512  # requests (signed bundles) in one batch
    max_batch_bytes: int = 4 * 1024 * 1024
    max_operation_bytes: int = 1536 * 1024
    max_result_bytes: int = 2 * 1024 * 1024  # of one operation; a larger result is refused
    max_bundle_operations: int = 256
    max_bundle_reads: int = 50_000  # entries that one bundle may read, a KiB of a value counts too
    max_kept_result_bytes: int = 16 * 1024 * 1024  # of one client's unacknowledged results (R17)
    max_state_bytes: int = 4 * 1024**3  # of the application's state; see pbft.node.quota (R47)
    client_window: int = 32  # bundles of one session in flight or not yet acknowledged (R16)
    sessions_per_client: int = 64  # the least recently used one is evicted (R45)
    session_idle_ms: int = 7 * 24 * 3600 * 1000  # of agreed time; then it is evicted (R45)
    request_timeout_ms: int = 1000  # nothing executes although a request waits (R19, R26)
    fairness_batches: int = 256  # batches that may pass a waiting request by (R19)
    view_timeout_ms: int = 1000  # the first wait for a NEW-VIEW; doubles per failed view (R36)
    view_timeout_cap_ms: int = 60_000
    heartbeat_interval_ms: int = 100
    heartbeat_timeout_ms: int = 700  # a silent primary is suspected after this (R26)
    clock_tolerance_ms: int = 5000  # delta: how far ahead a proposed time may be (R12)
    recovery_interval_ms: int = 30_000  # between two recoveries of one replica (R41)


class ClusterConfig(Struct, frozen=True, dict=True):
    """The members and parameters of one cluster, the same on every replica and client."""

    replicas: tuple[ReplicaInfo, ...]
    clients: tuple[ClientInfo, ...]
    parameters: Parameters = Parameters()
    lab: bool = False  # faulty-node modes are allowed

    @cached_property
    def cluster_id(self) -> bytes:
        """The SHA-256 digest (32 bytes) of everything above in canonical form."""
        return digest(b"pbft/1 cluster", encode(_Canonical(*_fields(self))))

    def client_keys(self) -> frozenset[bytes]:
        """The public keys of all admitted clients."""
        return frozenset(client.public_key for client in self.clients)


class _Canonical(Struct, frozen=True, array_like=True):
    replicas: tuple[ReplicaInfo, ...]
    clients: tuple[ClientInfo, ...]
    parameters: Parameters
    lab: bool


def _fields(
    config: ClusterConfig,
) -> tuple[tuple[ReplicaInfo, ...], tuple[ClientInfo, ...], Parameters, bool]:
    return config.replicas, config.clients, config.parameters, config.lab
