"""A plain state in memory, and an application that runs over it as a replica would run it."""

from collections.abc import Iterator

import pytest

from pbft import Context, Refused, StateMachine


class PlainState:
    """The ordered byte map as a dict."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.entries, reverse=reverse):
            if start <= key and (end is None or key < end):
                yield key, self.entries[key]


class Replica:
    """Applies operations one after the other; what is refused leaves nothing behind."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self.state = PlainState()
        self._seq = 0

    def apply(self, operation: bytes, client: str = "alice") -> bytes:
        self._seq += 1
        before = dict(self.state.entries)
        key = client.encode().ljust(32)
        context = Context(time=self._seq * 1000, client=key, session=1, seq=self._seq)
        try:
            return self._machine.apply(self.state, operation, context)
        except Refused:
            self.state.entries = before
            raise

    def query(self, operation: bytes) -> bytes:
        return self._machine.query(self.state, operation)


@pytest.fixture
def replica(machine: StateMachine) -> Replica:
    return Replica(machine)
