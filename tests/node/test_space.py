"""How much room a replica's files may need: never more than it makes, or it says so (R47)."""

from pathlib import Path
from random import Random

import pytest

from pbft.config import ClientInfo, ClusterConfig, ConfigError, Parameters, ReplicaInfo
from pbft.node.space import LEAST_BYTES, PAGES_PER_BYTE, needed_room, room_within
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_size import ENTRY_BYTES
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

GIB = 1024**3
PAGE = 4096


def cluster(clients: int = 2, **parameters: int) -> ClusterConfig:
    return ClusterConfig(
        tuple(ReplicaInfo(i, "h", 1 + i, bytes(32)) for i in range(4)),
        tuple(ClientInfo(f"client-{i}", bytes(32)) for i in range(clients)),
        Parameters(**parameters),
    )


def test_without_a_bound_there_is_as_much_as_may_be_needed() -> None:
    usual = room_within(cluster(), None)
    assert (usual.total, usual.log) == (LEAST_BYTES, needed_room(cluster()).log)
    large = cluster(clients=5000)
    assert room_within(large, None).total == needed_room(large).total > LEAST_BYTES


def test_a_bound_that_is_too_small_for_the_quota_is_refused_and_says_what_would_do() -> None:
    with pytest.raises(
        ConfigError, match=r"^--max-disk must be at least 51G, .*max_state_bytes, 4"
    ):
        room_within(cluster(), 40 * GIB)
    assert room_within(cluster(), 51 * GIB).total <= 51 * GIB
    smaller = cluster(max_state_bytes=GIB)
    assert room_within(smaller, 40 * GIB).state > needed_room(smaller).state


@pytest.mark.parametrize(
    ("parameter", "value", "file"),
    [
        ("max_state_bytes", 8 * GIB, "state"),
        ("max_kept_result_bytes", 64 * 1024**2, "state"),
        ("sessions_per_client", 10_000, "state"),
        ("max_batch_bytes", 8 * 1024**2, "log"),
        ("window", 512, "log"),
    ],
)
def test_what_may_be_stored_counts_for_the_file_that_it_is_in(
    parameter: str, value: int, file: str
) -> None:
    before, after = needed_room(cluster()), needed_room(cluster(**{parameter: value}))
    grown = {name for name in ("log", "state") if getattr(after, name) > getattr(before, name)}
    assert grown == {file}


@pytest.mark.rule("R47")
@pytest.mark.parametrize("value_bytes", [1, 2000, PAGE - 6])
def test_a_full_state_fits_though_all_of_it_is_rewritten_again_and_again(
    tmp_path: Path, value_bytes: int
) -> None:
    """The replica keeps up to three checkpoints for others, until the file is half full."""
    quota, random = 1_500_000, Random(1)
    keys = [random.randbytes(16) for _ in range(quota // (16 + value_bytes + ENTRY_BYTES))]
    database = LmdbDatabase(tmp_path, STATE_TABLES, PAGES_PER_BYTE * quota, durable=False)
    store, pins = StateStore(database), list[PinnedState]()
    for seq in range(1, 9):
        random.shuffle(keys)
        store.begin_batch(seq, 0)
        for key in keys:
            store.application.put(key, random.randbytes(value_bytes))
        store.flush()
        pins.append(store.pin())
        while len(pins) > (1 if pins[-1].crowded else 3):
            pins.pop(0).close()
    assert quota * 0.99 < store.application.size.exact() <= quota
    for pin in pins:
        pin.close()
    database.close()
