"""How much room a replica's two files may need at most, from the configuration alone.

Every limit that refuses something is replicated (R47); a disk that is smaller than what these
limits allow would stop one replica after the other. So a bound that is too small is refused before
the start. Both files are sparse: nothing is taken that is not used.
"""

from pbft.config import ClusterConfig, ConfigError
from pbft.core.evidence import MAX_EVIDENCE_PER_REPLICA
from pbft.node.operations import MAX_REFUSAL_BYTES
from pbft.node.quota import reserve_bytes

GIB = 1024**3
LEAST_BYTES = 64 * GIB  # the bound where none is given and no more is needed
PAGES_PER_BYTE = 7
"""Bytes of file for a byte that counts, at the most: two in the pages of tables and trees, and
three versions of each page where all of the state is rewritten between any two checkpoints
(benchmarks/disk_size.py measures it). Older states, kept for others to fetch, go where the file is
half full."""

FIXED_BYTES = 16 * 1024**2  # of either file, for what is small
VOTE_BYTES = 256  # a signed vote, in a record or a certificate
RESULT_BYTES = 16  # what a result takes beside its value
HEADER_BYTES = 1024  # a session without its results


class Room:
    """What `log` and `state` may grow to at most (bytes), and together."""

    def __init__(self, log: int, state: int) -> None:
        self.log = log
        self.state = state

    @property
    def total(self) -> int:
        """Both files."""
        return self.log + self.state


def needed_room(config: ClusterConfig) -> Room:
    """The smallest bounds with which no replica's disk is full before the quota is reached."""
    counted = config.parameters.max_state_bytes + reserve_bytes(config.parameters)
    state = PAGES_PER_BYTE * (counted + _session_bytes(config)) + FIXED_BYTES
    return Room(_whole(_log_bytes(config)), _whole(state))


def room_within(config: ClusterConfig, bound: int | None) -> Room:
    """The bounds of the two files within `bound` bytes together; None: as many as are needed.

    Raises ConfigError where that is too small for what the cluster's parameters allow.
    """
    needed = needed_room(config)
    if bound is None:
        bound = max(needed.total, LEAST_BYTES)
    if bound < needed.total:
        raise ConfigError(
            f"--max-disk must be at least {_shown(needed.total)}, or the disk could be full before "
            f"the cluster's quota (max_state_bytes, {_shown(config.parameters.max_state_bytes)}) "
            "is reached"
        )
    return Room(needed.log, (bound - needed.log) // _PAGES * _PAGES)


def _log_bytes(config: ClusterConfig) -> int:
    """Batches and votes from two windows and an interval; twice, since pages are copied."""
    parameters, n = config.parameters, len(config.replicas)
    slots = 2 * parameters.window + 2 * parameters.checkpoint_interval
    slot = parameters.max_batch_bytes + 3 * n * VOTE_BYTES
    view_change = (parameters.window + 1) * n * VOTE_BYTES
    kept = n + 2 * MAX_EVIDENCE_PER_REPLICA * n  # in a NEW-VIEW, and as evidence in pairs
    return 2 * (slots * slot + kept * view_change) + FIXED_BYTES


def _session_bytes(config: ClusterConfig) -> int:
    """The results that are kept, with one session's window of refusals above the limit."""
    parameters = config.parameters
    refusals = parameters.max_bundle_operations * (MAX_REFUSAL_BYTES + RESULT_BYTES)
    kept = parameters.max_kept_result_bytes + parameters.client_window * refusals
    headers = parameters.sessions_per_client * (HEADER_BYTES + 16 * parameters.client_window)
    return len(config.clients) * (kept + headers)


_PAGES = 64 * 1024  # a multiple of every page size


def _whole(size: int) -> int:
    return -(-size // _PAGES) * _PAGES


def _shown(size: int) -> str:
    return f"{-(-size // 1024**2)}M" if size < GIB else f"{-(-size // GIB)}G"
