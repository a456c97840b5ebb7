"""What one process lets its peers use, and the counters that say when a limit was met."""

from collections import Counter
from dataclasses import dataclass

Counters = Counter[str]
"""How often something was refused or dropped, by reason. The reasons are a closed set of names."""


@dataclass(frozen=True)
class Limits:
    """Bounds for connections. Sizes are in bytes, times in seconds."""

    max_frame_bytes: int = 16 * 1024 * 1024  # a payload of an authenticated peer
    outbound_bytes: int = 64 * 1024 * 1024  # sent but not yet taken by the network, per connection
    handshake_seconds: float = 5.0  # from accepted, or dialled, to authenticated
    frame_seconds: float = 30.0  # from a frame's first byte to its last; at most twice that
    close_seconds: float = 1.0  # for the last bytes to leave when a connection is closed
    max_unauthenticated: int = 256  # connections that have not authenticated yet
    max_unauthenticated_per_address: int = 64
    max_connections_per_identity: int = 16
    frames_in_turn: int = 64  # of one identity, before everybody else is served

    def __post_init__(self) -> None:
        if self.outbound_bytes <= self.max_frame_bytes:
            raise ValueError("outbound_bytes must exceed max_frame_bytes, or no frame gets out")
