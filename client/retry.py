"""When to send again: exponential back-off with jitter (R14)."""

from random import Random

FIRST_RETRY_US = 300_000
LAST_RETRY_US = 5_000_000


class Retry:
    """The next time at which something unanswered is sent again, in µs."""

    __slots__ = ("_interval", "_random", "due")

    def __init__(self, now: int, random: Random) -> None:
        self._interval = FIRST_RETRY_US
        self._random = random
        self.due = now + self._interval

    def again(self, now: int) -> None:
        """It was sent again: wait twice as long, up to the cap, and up to a quarter more."""
        self._interval = min(2 * self._interval, LAST_RETRY_US)
        self.due = now + self._interval + self._random.randrange(self._interval // 4)


def soonest(*times: int | None) -> int | None:
    """The earliest of `times` that is not None."""
    return min((time for time in times if time is not None), default=None)
