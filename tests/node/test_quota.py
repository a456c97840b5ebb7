"""The replicated byte quota (R47): who is refused for lack of space, and who never is."""

from random import Random
from typing import Any

import pytest

from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import Compact, Delete, Put, Range, Txn, encode
from pbft.apps.state_machine import Context, StateMachine
from pbft.config import Parameters
from pbft.messages import FAILED, OK, REFUSED, OperationResult, Request
from pbft.node.operations import Operations
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_size import ENTRY_BYTES
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

QUOTA = 4 * (ENTRY_BYTES + 10)
PARAMETERS = Parameters(max_state_bytes=QUOTA)
FULL = OperationResult(
    REFUSED, b"the state has reached its quota of %d bytes: make room first" % QUOTA
)


class Shelf(StateMachine):
    """`key` sets ten bytes under a key, `-key` deletes it, `!key` may use the reserve to set it."""

    def apply(self, state, operation, context) -> bytes:
        if operation.startswith(b"-"):
            state.delete(operation[1:])
        else:
            key = operation.lstrip(b"!")
            state.put(key, bytes(10 - len(key)))
        return b"done"

    def query(self, state, operation) -> bytes:
        return b"%d" % sum(1 for _ in state.range())

    def makes_room(self, operation: bytes) -> bool:
        if operation == b"!bad":
            raise ValueError
        return operation.startswith(b"!")

    def next_deadline(self, state) -> int | None:
        return 0

    def tick(self, state, context) -> None:
        state.put(b"tick", bytes(6))


class Bench:
    """One replica's state under one application."""

    def __init__(self, machine: StateMachine, parameters: Parameters = PARAMETERS) -> None:
        self.disk = MemoryDatabase(STATE_TABLES)
        self.machine, self.parameters = machine, parameters
        self.restart()

    def restart(self) -> None:
        """Begin again on what was flushed."""
        self.disk.crash()
        self.store = StateStore(self.disk)
        self.operations = Operations(self.store, self.machine, self.parameters)

    def run(self, *operations: bytes, read_only: bool = False) -> list[OperationResult]:
        """Execute a batch of one bundle."""
        seq = self.store.seq + 1
        self.store.begin_batch(seq, 0)
        self.operations.begin_batch()
        request = Request(b"c" * 32, 1, 1, 0, read_only, operations)
        context = Context(time=0, client=b"c" * 32, session=1, seq=seq)
        return list(self.operations.execute(request, context, 10_000_000))

    def tick(self) -> None:
        """Do what is due, in a batch of its own."""
        self.store.begin_batch(self.store.seq + 1, 0)
        self.operations.tick(Context(time=0, client=b"", session=0, seq=self.store.seq))

    @property
    def size(self) -> int:
        return self.store.application.size.exact()


def keys(bench: Bench) -> list[bytes]:
    return [key for key, _ in bench.store.application.range()]


@pytest.mark.rule("R47")
def test_what_would_exceed_the_quota_is_refused_and_undone() -> None:
    bench = Bench(Shelf())
    assert [result.code for result in bench.run(b"a", b"b", b"c", b"d")] == [OK] * 4
    assert bench.size == QUOTA
    assert bench.run(b"e") == [FULL]
    assert keys(bench) == [b"a", b"b", b"c", b"d"]
    assert bench.run(b"b", b"-a", b"e")[-1].code == OK


@pytest.mark.rule("R47")
def test_at_the_quota_reads_deletions_and_ticks_go_on() -> None:
    bench = Bench(Shelf())
    bench.run(b"a", b"b", b"c", b"d")
    bench.tick()
    assert bench.size > QUOTA
    assert bench.run(b"e") == [FULL]
    assert bench.run(b"count", read_only=True) == [OperationResult(OK, b"5")]
    assert bench.operations.query((b"count",)) == (OperationResult(OK, b"5"),)
    # What adds nothing is no worse than before: it is not refused, though the state is too large.
    assert [result.code for result in bench.run(b"a", b"-b", b"-nothing")] == [OK] * 3


@pytest.mark.rule("R47")
def test_what_makes_room_has_a_reserve_of_three_fifths_of_the_quota_and_no_more() -> None:
    bench = Bench(Shelf())
    bench.run(b"a", b"b", b"c", b"d")
    assert [result.code for result in bench.run(b"!e", b"!f", b"!g", b"h")] == [
        OK,
        OK,
        REFUSED,
        REFUSED,
    ]
    assert bench.size == QUOTA * 3 // 2  # three fifths are less than one entry more
    assert bench.run(b"-a", b"!h")[-1].code == OK


def test_an_application_that_fails_to_say_whether_it_makes_room_makes_none() -> None:
    bench = Bench(Shelf())
    bench.run(b"a", b"b", b"c", b"d")
    assert bench.run(b"!bad") == [FULL]


@pytest.mark.rule("R47")
def test_a_failure_counts_before_the_quota() -> None:
    class Failing(Shelf):
        def apply(self, state, operation, context) -> Any:
            state.put(b"x", bytes(9000))

    assert Bench(Failing()).run(b"a") == [OperationResult(FAILED, b"application error")]


def draw(random: Random) -> bytes:
    """Any operation of the key-value store; many of them grow it."""
    key = b"%d" % random.randrange(12)
    kind = random.randrange(10)
    if kind < 5:
        return encode(Put(key, bytes(random.randrange(300))))
    if kind < 7:
        return encode(Delete(key))
    if kind < 8:
        return encode(Txn((), (Delete(key), Put(b"t", bytes(random.randrange(100)))), ()))
    return encode(Compact(random.randrange(1, 200)) if kind < 9 else Range(key))


@pytest.mark.rule("R47")
@pytest.mark.parametrize("seed", range(10))
def test_replicas_refuse_the_same_whenever_they_flush_or_restart(seed: int) -> None:
    machine, parameters = KeyValueStore(history=20), Parameters(max_state_bytes=5_000)
    one, other = Bench(machine, parameters), Bench(machine, parameters)
    random, luck = Random(seed), Random(-seed)
    refused = 0
    for _ in range(300):
        operations = [draw(random) for _ in range(random.randrange(1, 4))]
        results = one.run(*operations)
        assert results == other.run(*operations)
        refused += sum(b"quota" in result.value for result in results if result.code == REFUSED)
        one.tick()
        other.tick()
        if luck.random() < 0.2:
            other.store.flush()
        if luck.random() < 0.1:
            other.store.flush()
            other.restart()
    assert one.size == other.size
    assert one.store.flush() == other.store.flush()
    assert refused > 10


@pytest.mark.rule("R47")
def test_a_full_key_value_store_can_be_emptied_and_filled_again() -> None:
    bench = Bench(KeyValueStore(), Parameters(max_state_bytes=200_000))
    written = 0
    while bench.run(encode(Put(b"%d" % written, b"")))[0].code == OK:
        written += 1
    assert written > 100
    # With history everything that is deleted adds a change first: the reserve holds all of them.
    for number in range(written):
        assert bench.run(encode(Delete(b"%d" % number)))[0].code == OK
    assert bench.size > 200_000
    assert bench.run(encode(Put(b"k", b"")))[0].code == REFUSED
    assert bench.run(encode(Compact(2 * written + 1)))[0].code == OK
    while bench.operations.next_deadline() is not None:
        bench.tick()
    assert bench.size < 1000
    assert bench.run(encode(Put(b"k", b"")))[0].code == OK


def test_the_key_value_store_makes_room_by_all_that_puts_nothing() -> None:
    machine = KeyValueStore()
    nested = Txn((), (Txn((), (Put(b"k", b""),), ()),), ())
    said = [Delete(b"k"), Compact(1), Txn((), (Delete(b"k"),), (Range(b"k"),)), Put(b"k", b"")]
    assert [machine.makes_room(encode(one)) for one in (*said, nested)] == [
        True,
        True,
        True,
        False,
        False,
    ]
