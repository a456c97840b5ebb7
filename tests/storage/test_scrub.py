"""The scrubber, over a whole data directory (R41)."""

from pathlib import Path

import pytest
from bad_disk import Content, open_it

from pbft.storage.data_directory import DataDirectory
from pbft.storage.database import CorruptRecord, writing
from pbft.storage.examine import LOG_TABLES
from pbft.storage.scrub import Scrub
from pbft.storage.state_store import StateStore


def scrub_once(directory: DataDirectory) -> Scrub:
    scrub = Scrub(directory.state, directory.log)
    while scrub.progress.passes == 0:
        scrub.step()
    return scrub


def test_a_scrub_reads_everything(data: Path, original: tuple[Path, Content]) -> None:
    directory = open_it(data)
    progress = scrub_once(directory).progress
    wanted = [table for table, _ in original[1]]
    nodes = sum(table.endswith(".nodes") for table in wanted)
    log = sum(table in LOG_TABLES[1:] for table in wanted)
    assert progress.nodes == nodes
    assert progress.entries == wanted.count("application") + wanted.count("sessions")
    assert progress.log_records == log + 1, "and its identity"
    directory.close()


@pytest.mark.rule("R41")
@pytest.mark.parametrize(
    ("table", "spoil", "reason"),
    [
        ("application", "delete", "the disk has lost a record of 'application'"),
        ("sessions", "alter", "the disk has altered a record of 'sessions'"),
        ("application.nodes", "delete", "the state's tree has lost its node"),
        ("application.nodes", "alter", "the state's tree"),
        ("batches", "raw", "corrupt record in table 'batches'"),
        ("application", "raw", "corrupt record in table 'application'"),
    ],
)
def test_a_scrub_finds_what_a_read_takes_for_good(
    data: Path, table: str, spoil: str, reason: str
) -> None:
    directory = open_it(data)
    database = directory.log if table in LOG_TABLES else directory.state
    with writing(database) as transaction:
        *_, (key, value) = transaction.scan(table)
        if spoil == "delete":
            transaction.delete(table, key)
        elif spoil == "alter":
            transaction.put(table, key, value[:-20] + bytes(1) + value[-19:])
        else:
            transaction._transaction.put(key, b"x" * 50, db=transaction._tables[table].handle)
    with pytest.raises(CorruptRecord, match=reason):
        scrub_once(directory)
    directory.close()


def test_a_scrub_goes_on_while_the_state_moves(data: Path) -> None:
    directory = open_it(data)
    scrub, store = Scrub(directory.state, directory.log), StateStore(directory.state)
    for seq in range(21, 40):
        for _ in range(60):
            scrub.step()
        store.begin_batch(seq, seq)
        for number in range(seq * 150):
            key = b"key %d" % (number % 3000)
            if number % 3:
                store.application.delete(key)
            else:
                store.application.put(key, b"%d" % seq)
        store.flush()
    assert scrub.progress.passes + scrub.progress.nodes > 1
    directory.close()
