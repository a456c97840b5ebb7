"""One replica's executor over the real state store, for tests of what it executes."""

from pbft.apps.state_machine import Context, StateMachine
from pbft.codec import encode
from pbft.config import Parameters
from pbft.core.batches import content_of
from pbft.messages import (
    Batch,
    Envelope,
    ReplyLeaf,
    Request,
)
from pbft.node.executor import Execution, Executor
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

ALICE, BOB, STRANGER = b"a" * 32, b"b" * 32, b"s" * 32
WINDOW = 4
PARAMETERS = Parameters(client_window=WINDOW, sessions_per_client=2)


class Journal(StateMachine):
    """Appends each operation to a journal and answers how long it is; queries read the length."""

    def __init__(self) -> None:
        self.deadline: int | None = None
        self.contexts: list[Context] = []

    def apply(self, state, operation, context) -> bytes:
        self.contexts.append(context)
        journal = (state.get(b"journal") or b"") + operation
        state.put(b"journal", journal)
        return b"%d" % len(journal)

    def query(self, state, operation) -> bytes:
        return b"%s %d" % (operation, len(state.get(b"journal") or b""))

    def next_deadline(self, state) -> int | None:
        raw = state.get(b"ticked")
        return None if raw else self.deadline

    def tick(self, state, context) -> None:
        state.put(b"ticked", b"%d" % context.time)
        state.put(b"journal", b"T")


def envelope(request: Request, signature: int = 0) -> Envelope:
    return Envelope(encode(request), bytes([signature]) * 64)


class Bench:
    """One replica's executor; `run` executes one batch per call."""

    def __init__(self, machine: StateMachine, parameters: Parameters = PARAMETERS) -> None:
        self.database = MemoryDatabase(STATE_TABLES)
        self.store = StateStore(self.database)
        self.machine = machine
        self.parameters = parameters
        self.executor = self.fresh_executor()

    def fresh_executor(self) -> Executor:
        admitted = frozenset((ALICE, BOB))
        return Executor(self.store, self.machine, self.parameters, admitted)

    def batch(self, *requests: Request, time: int = 0, signature: int = 0) -> Execution:
        batch = Batch(time, tuple(envelope(each, signature) for each in requests))
        return self.executor.execute(self.store.seq + 1, content_of(batch))

    def run(self, request: Request, signature: int = 0) -> ReplyLeaf:
        return self.batch(request, signature=signature).leaves[0]

    @property
    def journal(self) -> bytes:
        return self.store.application.get(b"journal") or b""


def opening(client: bytes = ALICE, session: int = 1) -> Request:
    return Request(client, session, 0, 0, False, ())


def bundle(
    number: int,
    *operations: bytes,
    client: bytes = ALICE,
    session: int = 1,
    acknowledged: int = 0,
    read_only: bool = False,
) -> Request:
    return Request(client, session, number, acknowledged, read_only, operations)


def values(leaf: ReplyLeaf) -> list[bytes]:
    return [result.value for result in leaf.results]
