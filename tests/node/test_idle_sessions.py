"""Sessions of clients long gone, in the executor (R45): evicted alike, and for ever."""

from random import Random

import pytest
from bench import Journal
from msgspec.structs import replace

from pbft.codec import encode
from pbft.config import Parameters
from pbft.core.batches import content_of
from pbft.core.session_facts import EvictedMark
from pbft.messages import EXECUTED, SESSION_EXPIRED, Batch, Envelope, Request
from pbft.node.executor import Execution, Executor
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

INTERVAL, IDLE_MS, IDLE = 4, 10, 10_000
PARAMETERS = Parameters(
    checkpoint_interval=INTERVAL, session_idle_ms=IDLE_MS, sessions_per_client=8
)
CLIENTS = tuple(bytes([number]) * 32 for number in range(40))


class Replica:
    """Executes batches, and may be restarted."""

    def __init__(self, parameters: Parameters = PARAMETERS) -> None:
        self.disk = MemoryDatabase(STATE_TABLES)
        self.parameters = parameters
        self.restart()

    def restart(self) -> None:
        self.disk.crash()
        self.store = StateStore(self.disk)
        self.executor = Executor(self.store, Journal(), self.parameters, frozenset(CLIENTS))

    def run(self, time: int, *requests: Request) -> Execution:
        batch = Batch(time, tuple(Envelope(encode(each), bytes(64)) for each in requests))
        return self.executor.execute(self.store.seq + 1, content_of(batch))


def opening(client: bytes, session: int = 1) -> Request:
    return Request(client, session, 0, 0, False, ())


def bundle(client: bytes, number: int, session: int = 1) -> Request:
    return Request(client, session, number, 0, False, (b"x",))


@pytest.mark.rule("R45")
def test_an_idle_session_is_evicted_at_a_checkpoint_and_its_late_copies_never_execute() -> None:
    replica, client = Replica(), CLIENTS[0]
    replica.run(0, opening(client))
    first = replica.run(1, bundle(client, 1))
    assert first.leaves[0].status == EXECUTED
    replica.run(1 + IDLE)
    assert replica.run(1 + IDLE).sessions == ()  # it was used no longer ago than that
    for _ in range(INTERVAL - 1):
        assert replica.run(2 + IDLE).sessions == ()
    assert replica.run(2 + IDLE).sessions == (EvictedMark(client, 1, 1),)
    before = replica.store.application.get(b"journal")
    for late in (bundle(client, 1), bundle(client, 2)):
        assert replica.run(2 + IDLE, late).leaves[0].status == SESSION_EXPIRED
    assert replica.run(2 + IDLE, opening(client)).leaves[0].status != EXECUTED
    assert replica.store.application.get(b"journal") == before


@pytest.mark.rule("R45")
def test_a_session_that_is_used_in_the_same_batch_stays() -> None:
    replica, client = Replica(), CLIENTS[0]
    replica.run(0, opening(client))
    replica.run(0)
    replica.run(0)
    assert replica.run(5 * IDLE, bundle(client, 1)).leaves[0].status == EXECUTED
    assert replica.run(5 * IDLE, bundle(client, 2)).leaves[0].status == EXECUTED


@pytest.mark.rule("R45")
@pytest.mark.parametrize("seed", range(5))
def test_replicas_evict_the_same_whenever_they_restart(seed: int) -> None:
    one, other = Replica(), Replica()
    random, luck = Random(seed), Random(-seed)
    time = evicted = 0
    for _ in range(200):
        time += random.randrange(2 * IDLE // 10)
        client, session = random.choice(CLIENTS), random.randrange(1, 30)
        request = random.choice((opening(client, session), bundle(client, 1, session)))
        execution = one.run(time, request)
        assert execution == other.run(time, request)
        evicted += sum(isinstance(change, EvictedMark) for change in execution.sessions)
        if luck.random() < 0.2:
            other.store.flush()
            other.restart()
    assert evicted > 20
    assert one.store.flush() == other.store.flush()


@pytest.mark.rule("R45")
def test_the_sessions_of_many_clients_take_no_room_for_ever() -> None:
    parameters = replace(PARAMETERS, sessions_per_client=64)
    replica = Replica(parameters)
    sizes = []
    for session in range(1, 600):
        requests = (opening(CLIENTS[0], session), bundle(CLIENTS[0], 1, session))
        replica.run(session * IDLE // 10, *requests)
        sizes.append(replica.store.sessions.size.exact())
    assert max(sizes[300:]) <= 1.02 * max(sizes[:100])  # numbers get a byte longer
    assert max(sizes) < 30 * 1000  # about ten that are not idle, and up to INTERVAL more
