"""Named deadlines on the core's own time."""


class Timers:
    """At most one deadline (µs) per name."""

    def __init__(self) -> None:
        self._deadlines: dict[str, int] = {}

    def set(self, name: str, deadline: int) -> None:
        """(Re)start the timer `name`."""
        self._deadlines[name] = deadline

    def start(self, name: str, deadline: int) -> None:
        """Start the timer `name` unless it runs already."""
        self._deadlines.setdefault(name, deadline)

    def hasten(self, name: str, deadline: int) -> None:
        """Let the timer `name` end at `deadline` unless it ends before."""
        self._deadlines[name] = min(deadline, self._deadlines.get(name, deadline))

    def stop(self, name: str) -> None:
        """Stop the timer `name` if it runs."""
        self._deadlines.pop(name, None)

    def due(self, now: int) -> list[str]:
        """The names of the timers that have ended, which stops them; earliest first."""
        ended = sorted((at, name) for name, at in self._deadlines.items() if at <= now)
        for _, name in ended:
            del self._deadlines[name]
        return [name for _, name in ended]

    @property
    def next(self) -> int | None:
        """The earliest deadline, or None."""
        return min(self._deadlines.values(), default=None)
