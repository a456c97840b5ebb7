"""A replica's data directory: `log` with its votes and batches, `state` with what it has executed.

A directory that has lost a part is refused: a replica that has forgotten its votes could contradict
them (R41). A first start is made safe against crashes by a marker file: while it is there, nothing
has been voted on yet.
"""

from pathlib import Path

from pbft.storage.database import StorageFailure
from pbft.storage.directory_lock import DirectoryLock, UnusableDirectory, sync_directory
from pbft.storage.lmdb_database import DATA_NAME, LmdbDatabase
from pbft.storage.state_store import STATE_TABLES
from pbft.storage.store_identity import has_identity, write_identity

LOG_TABLES = ("meta", "view", "slots", "batches", "votes", "checkpoints", "evidence")
LOG_MAP_BYTES = 4 * 1024**3
STATE_MAP_BYTES = 64 * 1024**3

_LOG, _STATE = "log", "state"
_MARKER = "first-start"


class MissingData(UnusableDirectory):
    """There is no data, or only a part of it, where there should be all of it."""


class DataDirectory:
    """Both environments of one replica; `created` says that this is their first start."""

    def __init__(
        self, lock: DirectoryLock, log: LmdbDatabase, state: LmdbDatabase, created: bool
    ) -> None:
        self._lock = lock
        self.log = log
        self.state = state
        self.created = created

    def close(self) -> None:
        """Close both and let others in. Idempotent."""
        self.state.close()
        self.log.close()
        self._lock.release()


def open_data_directory(
    path: Path,
    cluster_id: bytes,
    replica: int,
    *,
    fresh_ok: bool,
    durable: bool = True,
    log_map_bytes: int = LOG_MAP_BYTES,
    state_map_bytes: int = STATE_MAP_BYTES,
) -> DataDirectory:
    """Open the data of `replica` in `path`, or with `fresh_ok` make it where there is none.

    Raises DirectoryInUse, MissingData, WrongDirectory, WrongFormat (each an UnusableDirectory), and
    StorageFailure.
    """
    created = _is_first_start(path, fresh_ok)
    lock = _enter(path)
    opened: list[LmdbDatabase] = []
    try:
        created = _is_first_start(path, fresh_ok)
        if created:
            _mark(path)
        opened.append(LmdbDatabase(path / _LOG, LOG_TABLES, log_map_bytes, durable=durable))
        opened.append(LmdbDatabase(path / _STATE, STATE_TABLES, state_map_bytes, durable=durable))
        for database, name in zip(opened, (_LOG, _STATE), strict=True):
            _identify(database, path / name, cluster_id, replica, created)
        if created:
            _unmark(path)
    except BaseException as error:
        for database in opened:
            database.close()
        lock.release()
        raise _translated(path, error) from None
    return DataDirectory(lock, *opened, created=created)
