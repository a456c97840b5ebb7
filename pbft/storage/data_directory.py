"""A replica's data directory: `log` with its votes and batches, `state` with what it has executed.

A directory that has lost a part is refused: a replica that has forgotten its votes could contradict
them (R41). A first start is made safe against crashes by a marker file: while it is there, nothing
has been voted on yet.
"""

from contextlib import ExitStack
from pathlib import Path

from pbft.storage.database import StorageFailure
from pbft.storage.directory_lock import (
    DirectoryLock,
    UnusableDirectory,
    sync_directory,
    sync_parents,
)
from pbft.storage.lmdb_database import DATA_NAME, LmdbDatabase
from pbft.storage.state_trees import STATE_TABLES
from pbft.storage.store_identity import has_identity, write_identity

LOG_TABLES = ("meta", "view", "slots", "batches", "checkpoints", "evidence")
LOG_MAP_BYTES = STATE_MAP_BYTES = 64 * 1024**3  # sparse: room that is taken only when used

_LOG, _STATE = "log", "state"
_MARKER = "first-start"


class MissingData(UnusableDirectory):
    """There is no data, or only a part of it, where there should be all of it."""


class DataDirectory:
    """Both environments of one replica in `path`; `created`: this is their first start."""

    def __init__(
        self, path: Path, log: LmdbDatabase, state: LmdbDatabase, created: bool, opened: ExitStack
    ) -> None:
        self.path = path
        self.log = log
        self.state = state
        self.created = created
        self._opened = opened

    def close(self) -> None:
        """Close both and let others in. Idempotent."""
        self._opened.close()


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

    The map sizes (bytes) bound the two files. Raises DirectoryInUse, MissingData, WrongDirectory,
    WrongFormat (each an UnusableDirectory), and StorageFailure.
    """
    with ExitStack() as opened:
        created = _enter(path, fresh_ok, opened)
        log = LmdbDatabase(path / _LOG, LOG_TABLES, log_map_bytes, durable=durable)
        opened.callback(log.close)
        state = LmdbDatabase(path / _STATE, STATE_TABLES, state_map_bytes, durable=durable)
        opened.callback(state.close)
        for database, name in ((log, _LOG), (state, _STATE)):
            _identify(database, path / name, cluster_id, replica, created)
        _unmark(path)
        return DataDirectory(path, log, state, created, opened.pop_all())


def _enter(path: Path, fresh_ok: bool, opened: ExitStack) -> bool:
    """Lock the directory; returns whether this is a first start, which is marked then."""
    try:
        if fresh_ok:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not path.is_dir():
            raise MissingData(f"there is no data directory {path}")
        opened.callback(DirectoryLock(path).release)
        created = _is_first_start(path, fresh_ok)
        if created:
            _begin_first_start(path)
        return created
    except OSError as error:
        raise StorageFailure(_unusable(path, error)) from None


def _is_first_start(path: Path, fresh_ok: bool) -> bool:
    missing = [name for name in (_LOG, _STATE) if not (path / name / DATA_NAME).exists()]
    if not (path / _MARKER).exists():
        if not missing:
            return False
        if len(missing) == 1:
            raise MissingData(
                f"{path / missing[0]} has lost its data while the rest of {path} is still there"
            )
    if not fresh_ok:
        raise MissingData(f"there is no data of a replica in {path}")
    return True


def _begin_first_start(path: Path) -> None:
    """Mark it, and clear away what an earlier attempt has left: a power cut may have torn it."""
    (path / _MARKER).touch()
    sync_directory(path)
    sync_parents(path)
    for name in (_LOG, _STATE):
        (path / name / DATA_NAME).unlink(missing_ok=True)


def _identify(
    database: LmdbDatabase, path: Path, cluster_id: bytes, replica: int, created: bool
) -> None:
    if has_identity(database, str(path), cluster_id, replica):
        return
    if not created:
        raise MissingData(f"{path} has been emptied: it does not say whose data it holds")
    write_identity(database, cluster_id, replica)


def _unmark(path: Path) -> None:
    try:
        (path / _MARKER).unlink(missing_ok=True)
        sync_directory(path)
    except OSError as error:
        raise StorageFailure(_unusable(path, error)) from None


def _unusable(path: Path, error: OSError) -> str:
    reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
    return f"cannot use the data directory {path}: {reason}"
