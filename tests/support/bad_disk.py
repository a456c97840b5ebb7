"""A data directory with something in it, and what a bad disk does to its files."""

from pathlib import Path
from random import Random
from typing import Any

from pbft.storage.data_directory import DataDirectory, open_data_directory
from pbft.storage.database import reading, writing
from pbft.storage.examine import LOG_TABLES
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

CLUSTER = b"c" * 32
PAGE = 4096
Content = dict[tuple[str, bytes], bytes]


def open_it(path: Path, **changed: Any) -> DataDirectory:
    return open_data_directory(path, CLUSTER, 2, durable=False, **changed)


def write(directory: DataDirectory, seed: int = 1) -> None:
    """A log and a state of some size, which were written to more than once."""
    chance, store = Random(seed), StateStore(directory.state)
    for seq in range(1, 21):
        with writing(directory.log) as transaction:
            for table in LOG_TABLES[1:]:
                key = b"%03d" % chance.randrange(100)
                transaction.put(table, key, chance.randbytes(chance.choice([20, 300, 9000])))
        store.begin_batch(seq, seq)
        for _ in range(100):
            key = b"key %d" % chance.randrange(3000)
            store.application.put(key, chance.randbytes(chance.choice([3, 80, 3000])))
            store.sessions.put(b"h" + chance.randbytes(8), b"header")
        store.flush()


def content(directory: DataDirectory) -> Content:
    found = {}
    for database, tables in ((directory.log, LOG_TABLES), (directory.state, STATE_TABLES)):
        with reading(database) as reader:
            for table in tables:
                found.update(((table, key), value) for key, value in reader.scan(table))
    return found


def a_byte(data: bytearray, chance: Random) -> None:
    at = chance.choice([chance.randrange(len(data)), chance.randrange(2 * PAGE)])
    data[at] ^= 1 << chance.randrange(8)


def a_page(data: bytearray, chance: Random) -> None:
    at = chance.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = bytes(PAGE)


def a_page_of_noise(data: bytearray, chance: Random) -> None:
    at = chance.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = chance.randbytes(PAGE)


def a_page_in_another_place(data: bytearray, chance: Random) -> None:
    source, target = (chance.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    data[target : target + PAGE] = data[source : source + PAGE]


def the_end(data: bytearray, chance: Random) -> None:
    del data[chance.randrange(len(data)) :]
