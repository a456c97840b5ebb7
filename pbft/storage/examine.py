"""A look at one database file before it is opened, by a process of its own (R41).

    python -m pbft.storage.examine log|state FILE

reads every page and every record of the file, compares the state's Merkle trees with the tables
beside them, and writes `Findings` as JSON to standard output. It maps nothing and writes nothing.
`Examination` runs it; whatever happens to that process, the one that asks goes on.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

import pbft
from pbft.messages import StateSummary
from pbft.storage.database import CorruptRecord, StorageFailure
from pbft.storage.lmdb_database import STALE_ROOT, STAMP_KEY, STAMP_TABLE, stamp_of
from pbft.storage.page_file import Damaged, PageFile
from pbft.storage.seal import Seal
from pbft.storage.state_trees import STATE_TABLES
from pbft.storage.store_identity import FORMAT, IDENTITY_KEY, IDENTITY_TABLE, format_of
from pbft.storage.tree_check import EntrySum, check_tree, sum_of_table
from pbft.storage.tree_node import EMPTY_DIGEST

LOG_TABLES = ("meta", "view", "slots", "batches", "checkpoints", "evidence")
TABLES = {"log": LOG_TABLES, "state": STATE_TABLES}

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

_summaries = msgspec.msgpack.Decoder(StateSummary)


class Roots(Struct):
    """The state that a file says it holds."""

    seq: int
    time: int
    application_root: str
    sessions_root: str


class Findings(Struct):
    """What there is in a file. `damage` says what is wrong with it, and is empty if nothing is."""

    damage: str = ""
    identity: bytes | None = None  # the record of `store_identity`, if it has one
    file_bytes: int = 0
    used_bytes: int = 0
    map_bytes: int = 0
    free_pages: int = 0
    commit: int = 0
    records: dict[str, int] = {}  # how many each table has
    state: Roots | None = None
    target: Roots | None = None  # of a state transfer that was going on


class Examination:
    """The examination of a `log` or `state` file by another process: it begins at once."""

    def __init__(self, kind: str, file: Path) -> None:
        command = [sys.executable, "-P", "-m", "pbft.storage.examine", kind, str(file)]
        self._file = file
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(Path(pbft.__file__).parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def findings(self) -> Findings:
        """Wait for what it finds; a process that crashes has found damage.

        Raises StorageFailure where it could do nothing.
        """
        output, errors = self._process.communicate()
        code = self._process.returncode
        if code == 0:
            return msgspec.json.decode(output, type=Findings)
        if -code in CRASHES:
            return Findings(damage=f"reading it crashes a process: {signal.strsignal(-code)}")
        how = f"exit code {code}" if code > 0 else signal.strsignal(-code)
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise StorageFailure(f"{self._file} could not be examined ({how}) {last}".strip())

    def cancel(self) -> None:
        """Nobody wants to know any more. Idempotent."""
        self._process.kill()
        self._process.communicate()


def examine(kind: str, file: Path) -> Findings:
    """Examine a `log` or `state` file."""
    findings = Findings()
    try:
        with PageFile(file) as pages:
            _Examiner(kind, pages, findings).run()
    except (Damaged, CorruptRecord) as error:
        findings.damage = str(error)
    except OSError as error:
        findings.damage = f"it cannot be read: {error.strerror}"
    except (RecursionError, MemoryError) as error:
        findings.damage = f"it cannot be examined ({type(error).__name__})"
    return findings


def read_records(file: Path, *tables: str) -> Iterator[tuple[str, bytes, bytes]]:
    """Table, key and value of every record of some tables. Raises Damaged, CorruptRecord, OSError.

    For a file that was examined; like that it maps nothing, and does not get in anybody's way.
    """
    with PageFile(file) as pages:
        trees = pages.tables()
        for table in tables:
            seal = Seal(table)
            for key, stored in pages.records(trees[table]):
                yield table, key, seal.unseal(key, stored)


class _Examiner:
    """Fills in the findings."""

    def __init__(self, kind: str, pages: PageFile, findings: Findings) -> None:
        self._kind = kind
        self._pages = pages
        self._findings = findings
        self._kept: dict[tuple[str, bytes], bytes] = {}

    def run(self) -> None:
        findings, meta = self._findings, self._pages.meta
        findings.file_bytes = self._pages.bytes
        findings.used_bytes = (meta.last_page + 1) * meta.page_bytes
        findings.map_bytes, findings.commit = meta.map_bytes, meta.transaction
        self._tables = self._pages.tables()
        if IDENTITY_TABLE in self._tables:
            self._read_all(IDENTITY_TABLE)
            findings.identity = self._kept.get((IDENTITY_TABLE, IDENTITY_KEY))
            if findings.identity and format_of(findings.identity) != FORMAT:
                return  # what the rest means is for another version to say
        self._check_tables()
        if self._kind == "state":
            self._check_state()
        for name in self._tables.keys() - findings.records.keys():
            self._read_all(name)
        if self._kept.get((STAMP_TABLE, STAMP_KEY)) != stamp_of(meta.transaction):
            raise Damaged(STALE_ROOT)
        findings.free_pages = self._pages.free_pages()

    def _check_tables(self) -> None:
        wanted = {*TABLES[self._kind], STAMP_TABLE}
        if self._tables.keys() != wanted:
            odd = ", ".join(sorted(self._tables.keys() ^ wanted))
            raise Damaged(f"it does not have the tables of a {self._kind}: {odd!r}")

    def _records(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every record of a table, its checksum checked; few and small ones are kept."""
        seal, count = Seal(table), 0
        for key, stored in self._pages.records(self._tables[table]):
            value = seal.unseal(key, stored)
            if table in (IDENTITY_TABLE, STAMP_TABLE):
                self._kept[table, key] = value
            count += 1
            yield key, value
        self._findings.records[table] = count

    def _read_all(self, table: str) -> None:
        for _ in self._records(table):
            pass

    # --- the state ---------------------------------------------------------------------------

    def _check_state(self) -> None:
        state, target = self._summary(b"state"), self._summary(b"transfer")
        self._findings.state, self._findings.target = _roots(state), _roots(target)
        application = self._check_tree(b"\x00", "application")
        sessions = self._check_tree(b"\x01", "sessions")
        found = (application, sessions)
        empty = (EMPTY_DIGEST, EMPTY_DIGEST)
        roots = (state.application_root, state.sessions_root) if state else empty
        if target is None and found != roots:
            raise Damaged("the state's trees are not those of its summary")

    def _summary(self, key: bytes) -> StateSummary | None:
        record = self._kept.get((IDENTITY_TABLE, key))
        try:
            return None if record is None else _summaries.decode(record)
        except msgspec.DecodeError:
            raise Damaged("the summary of the state is not readable") from None

    def _check_tree(self, path: bytes, table: str) -> bytes:
        held: EntrySum = sum_of_table(self._records(table))
        root, told = check_tree(path, self._records(f"{table}.nodes"))
        if not held.agrees(told):
            counts = f"{held.count} records, its tree {told.count}"
            raise Damaged(f"table {table!r} and its tree do not hold the same: it has {counts}")
        return root


def _roots(summary: StateSummary | None) -> Roots | None:
    if summary is None:
        return None
    roots = summary.application_root.hex(), summary.sessions_root.hex()
    return Roots(summary.seq, summary.time, *roots)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(examine(sys.argv[1], Path(sys.argv[2]))))
