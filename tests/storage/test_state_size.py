"""How large the state is follows from its content, whatever happened before."""

from random import Random

import pytest

from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_map import Map
from pbft.storage.state_size import ENTRY_BYTES, StateSize
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES


def counted(state: Map) -> int:
    return sum(ENTRY_BYTES + len(key) + len(value) for key, value in state.range())


def change(store: StateStore, random: Random) -> None:
    """One operation: some writes, which may be undone."""
    with store.savepoint() as savepoint:
        for _ in range(random.randrange(1, 6)):
            key = b"%d" % random.randrange(60)
            if random.random() < 0.4:
                store.application.delete(key)
            else:
                store.application.put(key, bytes(random.randrange(40)))
        if random.random() < 0.3:
            savepoint.rollback()


@pytest.mark.rule("R47")
@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_same_whenever_it_is_flushed_asked_for_or_started_again(seed: int) -> None:
    random, luck = Random(seed), Random(-seed)
    disk = MemoryDatabase(STATE_TABLES)
    store = StateStore(disk)
    for batch in range(1, 40):
        store.begin_batch(batch, 0)
        for _ in range(random.randrange(4)):
            change(store, random)
            if luck.random() < 0.3:
                assert store.application.size.exact() == counted(store.application)
        whole = counted(store.application)
        assert store.application.size.most >= whole
        assert [store.application.size.exceeds(whole - d) for d in (0, 1)] == [False, True]
        if luck.random() < 0.3:
            store.flush()
            assert store.application.size.most == whole
        if luck.random() < 0.2:
            store.flush()
            disk.crash()
            store = StateStore(disk)
            assert store.application.size.exact() == whole


def test_far_from_the_bound_nothing_is_looked_up() -> None:
    looked_up: list[bytes] = []

    def load(key: bytes) -> bytes | None:
        looked_up.append(key)
        return b"old"

    size = StateSize(load)
    size.rebase(10 * ENTRY_BYTES)
    store_map = Map("application", None)
    store_map.size = size
    store_map.open_batch()
    for number in range(5):
        store_map.put(b"%d" % number, b"new")
    assert not size.exceeds(20 * ENTRY_BYTES)
    assert looked_up == []
    assert size.exceeds(10 * ENTRY_BYTES - 1)
    assert size.exact() == 10 * ENTRY_BYTES
    assert looked_up == [b"0", b"1", b"2", b"3", b"4"]
