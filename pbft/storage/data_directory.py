"""A replica's data directory: `log` with its votes and batches, `state` with what it has executed.

Both files are looked at before they are opened (`inspection`). A damaged or lost log is refused: a
replica that has forgotten its votes could contradict them (R41). A damaged or lost state is set
aside and begun anew as the state after sequence number 0, which is true though old: the replica is
then one that is far behind, and fetches the certified state from the others (R23). A first start is
made safe against crashes by a marker file: while it is there, nothing has been voted on yet.
"""

import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

from pbft.storage.clean_stop import leave_note
from pbft.storage.database import StorageFailure
from pbft.storage.directory_lock import DirectoryLock, sync_directory, sync_parents
from pbft.storage.examine import LOG_TABLES
from pbft.storage.inspection import LOG, STATE, Inspection, MissingData
from pbft.storage.lmdb_database import DATA_NAME, LmdbDatabase
from pbft.storage.state_trees import STATE_TABLES
from pbft.storage.store_identity import has_identity, write_identity
from pbft.storage.trouble import advice

LOG_MAP_BYTES = STATE_MAP_BYTES = 64 * 1024**3  # sparse: room that is taken only when used
SET_ASIDE = "state.damaged"

_MARKER = "first-start"


class DataDirectory:
    """Both environments of one replica in `path`.

    `discarded` says why the state was begun anew, and is empty if it was not.
    """

    def __init__(
        self,
        path: Path,
        log: LmdbDatabase,
        state: LmdbDatabase,
        discarded: str,
        opened: ExitStack,
    ) -> None:
        self.path = path
        self.log = log
        self.state = state
        self.discarded = discarded
        self._opened = opened
        self._closed = False

    def distrust(self) -> None:
        """Have both files examined at the next start."""
        self.log.healthy = self.state.healthy = False

    def close(self) -> None:
        """Close both and let others in. Idempotent.

        Where nothing has failed, the files need not be examined at the next start.
        """
        with self._opened:
            self.log.close()
            self.state.close()
            if not self._closed and self.log.healthy and self.state.healthy:
                with suppress(OSError):  # they are examined, then
                    leave_note(self.path, data_files(self.path))
            self._closed = True


def data_files(path: Path) -> dict[str, Path]:
    """The files of both environments in the data directory `path`."""
    return {name: path / name / DATA_NAME for name in (LOG, STATE)}


def open_data_directory(
    path: Path,
    cluster_id: bytes,
    replica: int,
    *,
    durable: bool = True,
    log_map_bytes: int = LOG_MAP_BYTES,
    state_map_bytes: int = STATE_MAP_BYTES,
) -> DataDirectory:
    """Open the data of `replica` in `path`, or make it where there is none.

    The map sizes (bytes) bound the two files. Raises DirectoryInUse, MissingData, DamagedLog,
    TooLarge, WrongDirectory, WrongFormat (each an UnusableDirectory), and StorageFailure.
    """
    with ExitStack() as opened:
        created, discarded = _enter(path, opened), ""
        bounds = {LOG: log_map_bytes, STATE: state_map_bytes}
        if not created:
            discarded = _inspect(path, cluster_id, replica, bounds)
        log = LmdbDatabase(path / LOG, LOG_TABLES, log_map_bytes, durable=durable)
        opened.callback(log.close)
        state = LmdbDatabase(path / STATE, STATE_TABLES, state_map_bytes, durable=durable)
        opened.callback(state.close)
        _identify(log, path / LOG, cluster_id, replica, created)
        _identify(state, path / STATE, cluster_id, replica, created or bool(discarded))
        _unmark(path)
        return DataDirectory(path, log, state, discarded, opened.pop_all())


def _enter(path: Path, opened: ExitStack) -> bool:
    """Lock the directory; returns whether this is a first start, which is marked then."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened.callback(DirectoryLock(path).release)
        created = _is_first_start(path)
        if created:
            _begin_first_start(path)
        return created
    except OSError as error:
        raise StorageFailure(_unusable(path, error)) from None


def _is_first_start(path: Path) -> bool:
    marked = (path / _MARKER).exists()
    return marked or not any(file.exists() for file in data_files(path).values())


def _begin_first_start(path: Path) -> None:
    """Mark it, and clear away what an earlier attempt has left: a power cut may have torn it."""
    (path / _MARKER).touch()
    sync_directory(path)
    sync_parents(path)
    for name in (LOG, STATE):
        if (path / name).exists():
            shutil.rmtree(path / name)


def _inspect(path: Path, cluster_id: bytes, replica: int, bounds: dict[str, int]) -> str:
    """Look at the files; a state that is of no use is moved out of the way, and why is returned."""
    try:
        useless = Inspection(path, data_files(path), cluster_id, replica).run(bounds)
        if useless is None:
            return ""
        _set_aside(path, useless.keep)
        return useless.reason
    except OSError as error:
        raise StorageFailure(_unusable(path, error)) from None


def _set_aside(path: Path, keep: bool) -> None:
    """Should all replicas have lost their states, a damaged one is all that there is: keep it."""
    if keep:
        shutil.rmtree(path / SET_ASIDE, ignore_errors=True)
        (path / STATE).rename(path / SET_ASIDE)
    else:
        shutil.rmtree(path / STATE, ignore_errors=True)
    sync_directory(path)


def _identify(
    database: LmdbDatabase, path: Path, cluster_id: bytes, replica: int, new: bool
) -> None:
    if has_identity(database, str(path), cluster_id, replica):
        return
    if not new:
        raise MissingData(f"{path} has been emptied: it does not say whose data it holds")
    write_identity(database, cluster_id, replica)


def _unmark(path: Path) -> None:
    try:
        (path / _MARKER).unlink(missing_ok=True)
        sync_directory(path)
    except OSError as error:
        raise StorageFailure(_unusable(path, error)) from None


def _unusable(path: Path, error: OSError) -> str:
    reason = "it is not a folder" if isinstance(error, FileExistsError) else advice(error, path)
    return f"cannot use the data directory {path}: {reason}"
