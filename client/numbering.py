"""The numbers of one session and of its bundles (R16, R45)."""

MAX_NUMBER = 2**63 - 1
RANDOM_BITS = 22


def session_number(now: int, random: int, lowest: int) -> int:
    """A fresh session number: milliseconds since 1970 above 22 random bits, at least `lowest`.

    `now` is in µs since 1970. Numbers of one client grow with time, whatever process opens them.
    """
    number = ((now // 1000) << RANDOM_BITS | random) & MAX_NUMBER
    return number if number >= lowest else min(lowest + random, MAX_NUMBER)


class SessionNumbers:
    """One session's bundle numbers: which is next, and up to which all results are here."""

    __slots__ = ("_finished", "_next", "acknowledged", "session")

    def __init__(self, session: int) -> None:
        self.session = session
        self.acknowledged = 0
        self._next = 1
        self._finished: set[int] = set()

    def has_room(self, window: int) -> bool:
        """Whether the next bundle lies inside the replicas' window."""
        return self._next <= self.acknowledged + window

    def take(self) -> int:
        """The next bundle's number."""
        self._next += 1
        return self._next - 1

    def finish(self, bundle: int) -> None:
        """The results of `bundle` are here."""
        self._finished.add(bundle)
        while self.acknowledged + 1 in self._finished:
            self.acknowledged += 1
            self._finished.remove(self.acknowledged)
