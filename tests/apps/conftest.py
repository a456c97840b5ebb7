"""A State in memory, and a key-value store on it that takes typed operations."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sortedcontainers import SortedDict

from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import AnyResult, Operation, decode_result, encode
from pbft.apps.state_machine import MAX_KEY_BYTES, Context, Refused

CONTEXT = Context(time=1, client=b"c" * 32, session=1, seq=1)


class MemoryState:
    """The map; `reads` counts the entries that were looked at."""

    def __init__(self) -> None:
        self.entries: SortedDict = SortedDict()
        self.reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        value: bytes | None = self.entries.get(key)
        return value

    def range(
        self, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for key in self.entries.irange(start, end, (True, False), reverse):
            self.reads += 1
            yield key, self.entries[key]

    def put(self, key: bytes, value: bytes) -> None:
        assert isinstance(value, bytes)
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise Refused("bad key")
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)


class Harness:
    """Applies typed operations as the executor would: a refused one leaves nothing."""

    def __init__(self, history: int = 10_000) -> None:
        self.machine = KeyValueStore(history)
        self.state = MemoryState()

    def do(self, operation: Operation) -> Any:
        """The typed result. Raises Refused."""
        return decode_result(self.raw(encode(operation)))

    def raw(self, operation: bytes) -> bytes:
        """The result's bytes. Raises Refused."""
        before = self.state.entries.copy()
        try:
            return self.machine.apply(self.state, operation, CONTEXT)
        except Refused:
            self.state.entries = before
            raise

    def ask(self, operation: Operation) -> AnyResult:
        """The answer to a query. Raises Refused."""
        before = dict(self.state.entries)
        result = decode_result(self.machine.query(self.state, encode(operation)))
        assert dict(self.state.entries) == before
        return result


@pytest.fixture(scope="session")  # it makes new ones: hypothesis may share it among examples
def new_store() -> Callable[..., Harness]:
    return Harness


@pytest.fixture
def store() -> Harness:
    return Harness()
