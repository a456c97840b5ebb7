"""What the executor tells the core of clients' sessions: a small mirror, without their results."""

from msgspec import Struct


class SessionView(Struct, frozen=True):
    """A session as it is now: `executed` lists, in order, the executed bundles above `low`."""

    client: bytes
    session: int
    low: int  # everything up to here is acknowledged or given up; nothing of it executes any more
    executed: tuple[int, ...]


class EvictedMark(Struct, frozen=True):
    """`session` is gone for ever; `highest` is the client's highest evicted number (R45)."""

    client: bytes
    session: int
    highest: int
