from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pbft.storage.database import Database
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

MakeDatabase = Callable[[Sequence[str]], Database]


@pytest.fixture(params=["memory", "lmdb"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeDatabase]:
    """Empty databases of one kind; they are closed at the end."""
    opened: list[Database] = []

    def make(tables: Sequence[str]) -> Database:
        if request.param == "memory":
            opened.append(MemoryDatabase(tables))
        else:
            path = tmp_path / f"environment-{len(opened)}"
            opened.append(LmdbDatabase(path, tables, 1 << 28, durable=False))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def database(make_database: MakeDatabase) -> Database:
    """A database with the tables `a` and `b`."""
    return make_database(("a", "b"))


@pytest.fixture
def disk() -> MemoryDatabase:
    """The disk of a state store."""
    return MemoryDatabase(STATE_TABLES)


@pytest.fixture
def store(disk: MemoryDatabase) -> StateStore:
    """An empty state."""
    return StateStore(disk)
