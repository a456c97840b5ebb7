import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bad_disk import Content, content, open_it, write

from pbft.storage import inspection
from pbft.storage.database import Database
from pbft.storage.examine import Findings, examine
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


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Content]:
    """A data directory, closed, and what is in it."""
    path = tmp_path_factory.mktemp("original") / "data"
    directory = open_it(path)
    write(directory)
    found = content(directory)
    directory.close()
    return path, found


@pytest.fixture
def data(original: tuple[Path, Content], tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    return shutil.copytree(original[0], tmp_path / "data")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examine here: a hundred processes take long."""

    class Here:
        def __init__(self, kind: str, file: Path) -> None:
            self.findings: Callable[[], Findings] = lambda: examine(kind, file)

        def cancel(self) -> None:
            """It was not even begun."""

    monkeypatch.setattr(inspection, "Examination", Here)
