import pytest

from pbft.storage.database import StorageFailure, reading, writing
from pbft.storage.memory_database import MemoryDatabase


def test_a_crash_drops_open_work_and_keeps_what_was_committed() -> None:
    database = MemoryDatabase(("a",))
    with writing(database) as transaction:
        transaction.put("a", b"k", b"v")
    snapshot = database.snapshot()
    lost = database.begin()
    lost.put("a", b"lost", b"v")
    database.crash()
    with pytest.raises(StorageFailure):
        lost.commit()
    with pytest.raises(StorageFailure):
        snapshot.get("a", b"k")
    with reading(database) as reader:
        assert dict(reader.scan("a")) == {b"k": b"v"}


def test_what_was_committed_can_be_opened_again_after_a_close() -> None:
    database = MemoryDatabase(("a",))
    with writing(database) as transaction:
        transaction.put("a", b"k", b"v")
    database.close()
    database.crash()
    with reading(database) as reader:
        assert reader.get("a", b"k") == b"v"
