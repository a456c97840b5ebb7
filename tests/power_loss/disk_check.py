"""What must hold of a disk after a power cut, asked of the shipped program."""

import os
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from random import Random
from unittest.mock import patch

from msgspec import Struct

from pbft.codec import decode_body, encode
from pbft.core.incarnation import starts_in
from pbft.core.records import TABLES, incarnations_write
from pbft.messages import Envelope, Incarnation
from pbft.node.log_store import LogStore
from pbft.storage import inspection
from pbft.storage.data_directory import open_data_directory
from pbft.storage.database import Database, StorageFailure, reading, writing
from pbft.storage.directory_lock import UnusableDirectory
from pbft.storage.examine import Findings, examine
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES, TREES, write_entries
from tests.power_loss.disk_model import NEVER_SYNCED, Image
from tests.power_loss.marks import Content, content_of
from tests.power_loss.recording import PLACE

REPLICA = 1
IDENTITY = ("meta", b"identity")
LOCK_BYTES = 4224

_consistent: deque[Content] = deque(maxlen=4)
"""States that `check_state` has found in order lately: most images of one moment give the same."""


class Allowed(Struct, frozen=True):
    """What may be found: the one or two contents of each database, the acknowledged one first.

    With `first_start` none has been acknowledged yet, and there may also be nothing.
    """

    log: Sequence[Content]
    state: Sequence[Content]
    first_start: bool = False


class Lost(AssertionError):
    """The disk does not hold what it must; the text says in what way."""


def commit_once(log: Database, state: Database) -> None:
    """One more transaction in each, as the next start of the replica would make it."""
    records = LogStore(log)
    starts = records.restore().incarnations
    others = [start for start in starts if decode_body(start.body).replica != REPLICA]
    number = starts_in(starts).get(REPLICA, 0) + 1
    begun = Envelope(encode(Incarnation(REPLICA, number, 0, True)), bytes(64))
    records.add([incarnations_write((*others, begun))])
    records.commit()
    store = StateStore(state)
    if store.transfer_target is not None:
        store.begin_transfer(store.transfer_target)
        return
    store.begin_batch(store.seq + 1, store.time + 1)
    store.application.put(b"after power loss", bytes(5_000))
    store.flush()


def put_image(image: Image, folder: Path, random: Random) -> None:
    """Make `folder` that disk; files that nobody ever synced hold anything."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in sorted(image.items()):
        if content is None:
            (folder / path).mkdir()
            continue
        if path.endswith(NEVER_SYNCED):
            (folder / path).write_bytes(_anything(random))
        else:
            (folder / path).write_bytes(content)


def _anything(random: Random) -> bytes:
    if random.random() < 0.3:
        return b""
    return random.choice((bytes(LOCK_BYTES), random.randbytes(LOCK_BYTES), b"123\n"))


class Examined:
    """The examination of a file, by this process: another one takes longer than all else here."""

    def __init__(self, kind: str, file: Path) -> None:
        self._findings = examine(kind, file)

    def findings(self) -> Findings:
        return self._findings

    def cancel(self) -> None:
        pass


def check_image(folder: Path, cluster_id: bytes, allowed: Allowed) -> str:
    """Open the disk as `pbft node` does, and go on with it; says what was found. Raises Lost."""
    try:
        with patch.object(inspection, "Examination", Examined):
            return _check_once(folder / PLACE, cluster_id, allowed)
    except (StorageFailure, UnusableDirectory) as refused:
        raise Lost(f"{type(refused).__name__}: {refused}".replace(str(folder), "")) from refused


def _check_once(path: Path, cluster_id: bytes, allowed: Allowed) -> str:
    directory = open_data_directory(path, cluster_id, REPLICA)
    try:
        if directory.discarded:
            raise Lost(f"it begins its state anew: {directory.discarded}")
        found = content_of(directory.log, TABLES)
        newest = _find("log", found, allowed.log, allowed.first_start)
        state = content_of(directory.state, STATE_TABLES)
        newest |= _find("state", state, allowed.state, allowed.first_start)
        commit_once(directory.log, directory.state)
        after = content_of(directory.log, TABLES), content_of(directory.state, STATE_TABLES)
        if after[1] not in _consistent:
            check_state(after[1])
            _consistent.append(after[1])
    finally:
        directory.close()
    directory = open_data_directory(path, cluster_id, REPLICA)
    try:
        again = content_of(directory.log, TABLES), content_of(directory.state, STATE_TABLES)
        if again != after or after[0] == found:
            raise Lost("a commit after the power cut does not last")
    finally:
        directory.close()
    if not found.keys() - {IDENTITY}:
        return "a first start, to be made again or just done"
    return "the transaction under way, whole" if newest else "what was acknowledged"


def _find(name: str, found: Content, allowed: Sequence[Content], first_start: bool) -> bool:
    """Whether it is a transaction that was not acknowledged. Raises Lost if it is nothing known."""
    if found in allowed or (first_start and found.keys() <= {IDENTITY}):
        return found in allowed[1:]
    wanted = allowed[0] if allowed else {}
    missing = sum(found.get(key) != value for key, value in wanted.items())
    strange = len(set(found) - set(wanted))
    raise Lost(
        f"{name}: {missing} of {len(wanted)} records that were acknowledged are lost or changed, "
        f"{strange} are unknown, and it is no other committed state either"
    )


def check_state(content: Content) -> None:
    """The stored trees are those of the stored entries, and say what the summary says. Lost.

    The trees are built anew from the entries alone.
    """
    memory = MemoryDatabase(STATE_TABLES)
    with writing(memory) as transaction:
        for tree in TREES:
            entries = {k: value for (table, k), value in content.items() if table == tree.entries}
            write_entries(transaction, tree, entries)
    rebuilt = content_of(memory, tuple(t for t in STATE_TABLES if t != "meta"))
    if rebuilt != {key: value for key, value in content.items() if key[0] != "meta"}:
        raise Lost("state: the trees are not those of its entries")
    _check_summary(memory, content)


def _check_summary(memory: MemoryDatabase, content: Content) -> None:
    stored = MemoryDatabase(STATE_TABLES)
    with writing(stored) as transaction:
        for (table, key), value in content.items():
            transaction.put(table, key, value)
    store = StateStore(stored)
    if store.transfer_target is not None:
        return  # a mixture, and marked as one
    summary = store.summary()
    with reading(memory) as reader:
        roots = [tree.root(reader) for tree in TREES]
    if roots != [summary.application_root, summary.sessions_root]:
        raise Lost(f"state: its entries do not have the roots of the state after {summary.seq}")


def image_of(folder: Path) -> Image:
    """What is in `folder` now."""
    image: Image = {}
    for path in sorted(folder.rglob("*")):
        image[os.fspath(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return image
