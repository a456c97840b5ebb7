"""What every Database promises, shown on both."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from pbft.storage.database import Database, StorageFailure, reading, writing


def put(database: Database, **records: str) -> None:
    with writing(database) as transaction:
        for key, value in records.items():
            transaction.put("a", key.encode(), value.encode())


def content(database: Database, table: str = "a") -> dict[bytes, bytes]:
    with reading(database) as snapshot:
        return dict(snapshot.scan(table))


def test_a_transaction_reads_its_own_writes_before_others_do(database: Database) -> None:
    put(database, old="1", gone="1")
    transaction = database.begin()
    transaction.put("a", b"new", b"2")
    transaction.put("a", b"old", b"2")
    transaction.delete("a", b"gone")
    assert [transaction.get("a", key) for key in (b"new", b"old", b"gone")] == [b"2", b"2", None]
    assert list(transaction.scan("a")) == [(b"new", b"2"), (b"old", b"2")]
    assert content(database) == {b"old": b"1", b"gone": b"1"}
    transaction.commit()
    assert content(database) == {b"old": b"2", b"new": b"2"}


def test_an_aborted_transaction_leaves_nothing(database: Database) -> None:
    transaction = database.begin()
    transaction.put("a", b"k", b"v")
    transaction.abort()
    transaction.abort()
    assert content(database) == {}


def test_an_exception_inside_a_writing_block_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with writing(database) as transaction:
            transaction.put("a", b"k", b"v")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert content(database) == {}
    put(database, k="v")


def test_abort_after_commit_changes_nothing(database: Database) -> None:
    transaction = database.begin()
    transaction.put("a", b"k", b"v")
    transaction.commit()
    transaction.abort()
    assert content(database) == {b"k": b"v"}


def test_a_transaction_that_has_ended_is_of_no_use(database: Database) -> None:
    transaction = database.begin()
    transaction.commit()
    with pytest.raises(StorageFailure):
        transaction.commit()
    with pytest.raises(StorageFailure):
        transaction.put("a", b"k", b"v")
    with pytest.raises(StorageFailure):
        transaction.get("a", b"k")


def test_there_is_one_write_transaction_at_a_time(database: Database) -> None:
    transaction = database.begin()
    with pytest.raises(RuntimeError, match="already open"):
        database.begin()
    transaction.abort()
    database.begin().abort()


def test_tables_are_apart(database: Database) -> None:
    put(database, k="v")
    assert content(database, "b") == {}
    with reading(database) as snapshot, pytest.raises(KeyError):
        snapshot.get("c", b"k")


def test_a_snapshot_stays_as_it_was(database: Database) -> None:
    put(database, k="1", gone="1")
    snapshot = database.snapshot()
    with writing(database) as transaction:
        transaction.put("a", b"k", b"2")
        transaction.delete("a", b"gone")
        transaction.put("a", b"l", b"2")
    assert dict(snapshot.scan("a")) == {b"k": b"1", b"gone": b"1"}
    assert snapshot.get("a", b"l") is None
    assert content(database) == {b"k": b"2", b"l": b"2"}
    snapshot.close()
    snapshot.close()
    with pytest.raises(StorageFailure):
        snapshot.get("a", b"k")


def test_a_snapshot_can_be_read_and_closed_on_another_thread(database: Database) -> None:
    put(database, k="v")
    snapshot = database.snapshot()
    seen: list[object] = []

    def read() -> None:
        seen.append(snapshot.get("a", b"k"))
        snapshot.close()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert seen == [b"v"]


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_a_key_that_cannot_be_stored_is_refused_and_never_found(
    database: Database, key: bytes
) -> None:
    with writing(database) as transaction:
        with pytest.raises(ValueError, match="1 to 511 bytes"):
            transaction.put("a", key, b"v")
        transaction.delete("a", key)
        assert transaction.get("a", key) is None
        transaction.put("a", b"k" * 511, b"")
    assert content(database) == {b"k" * 511: b""}
    with reading(database) as snapshot:
        assert snapshot.get("a", key) is None


def test_many_records_are_written_at_once(database: Database) -> None:
    put(database, old="1", gone="1")
    with writing(database) as transaction:
        changes = {b"gone": None, b"never": None, b"new": b"2", b"old": b"2", b"x" * 600: None}
        assert transaction.write("a", changes) == [b"never", b"x" * 600]
        assert list(transaction.scan("a")) == [(b"new", b"2"), (b"old", b"2")]
        for key in (b"", b"k" * 512):
            with pytest.raises(ValueError, match="1 to 511 bytes"):
                transaction.write("a", {key: b"v"})
    assert content(database) == {b"new": b"2", b"old": b"2"}
    with pytest.raises(StorageFailure):
        transaction.write("a", {b"k": b"v"})


def test_a_value_of_two_mebibytes_comes_back(database: Database) -> None:
    value = bytes(range(256)) * 8192
    with writing(database) as transaction:
        transaction.put("a", b"k", value)
    with reading(database) as snapshot:
        assert snapshot.get("a", b"k") == value


def test_a_scan_reads_no_further_than_it_is_asked_to(database: Database) -> None:
    put(database, a="1", b="2", c="3")
    snapshot = database.snapshot()
    scan = snapshot.scan("a")
    assert next(scan) == (b"a", b"1")
    snapshot.close()
    with pytest.raises(StorageFailure):
        list(scan)


def test_closing_is_idempotent_and_final(database: Database) -> None:
    transaction = database.begin()
    snapshot = database.snapshot()
    database.close()
    database.close()
    transaction.abort()
    snapshot.close()
    with pytest.raises(StorageFailure):
        database.begin()
    with pytest.raises(StorageFailure):
        database.snapshot()


keys = st.binary(min_size=1, max_size=3)
bounds = st.one_of(st.binary(max_size=3), st.binary(min_size=600, max_size=600))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    committed=st.dictionaries(keys, keys, max_size=12),
    written=st.dictionaries(keys, st.none() | keys, max_size=12),
    start=bounds,
    end=st.none() | bounds,
    reverse=st.booleans(),
)
def test_a_scan_is_a_slice_of_the_sorted_table(
    database: Database,
    committed: dict[bytes, bytes],
    written: dict[bytes, bytes | None],
    start: bytes,
    end: bytes | None,
    reverse: bool,
) -> None:
    with writing(database) as transaction:
        for key, _ in list(transaction.scan("a")):
            transaction.delete("a", key)
        for key, value in committed.items():
            transaction.put("a", key, value)
    model = dict(committed)
    with writing(database) as transaction:
        for key, change in written.items():
            if change is None:
                transaction.delete("a", key)
                model.pop(key, None)
            else:
                transaction.put("a", key, change)
                model[key] = change
        expected = [
            item
            for item in sorted(model.items(), reverse=reverse)
            if item[0] >= start and (end is None or item[0] < end)
        ]
        assert list(transaction.scan("a", start, end, reverse=reverse)) == expected
    with reading(database) as snapshot:
        assert list(snapshot.scan("a", start, end, reverse=reverse)) == expected
