"""What a start decides on the files that it finds, before it opens them.

A file that a clean stop left, and that is still the same, is good. Any other is examined by a
process of its own, both at once.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from pbft.storage.clean_stop import take_note
from pbft.storage.directory_lock import UnusableDirectory
from pbft.storage.examine import Examination, Findings
from pbft.storage.store_identity import check_identity

LOG, STATE = "log", "state"
START_ANEW = (
    "move the data directory away and start with an empty one: the replica then rejoins as one "
    "that has forgotten its votes"
)


class MissingData(UnusableDirectory):
    """There is no data, or only a part of it, where there should be all of it."""


class DamagedLog(UnusableDirectory):
    """Nobody can tell any more what this replica has promised."""


class TooLarge(UnusableDirectory):
    """A file has outgrown the map that is to hold it."""


class Useless(Struct, frozen=True):
    """A state that must be begun anew; `keep` says that something may be left of it."""

    reason: str
    keep: bool


class Inspection:
    """Of the files `log` and `state` of replica `replica`, found in the folders of these names."""

    def __init__(
        self, path: Path, files: Mapping[str, Path], cluster_id: bytes, replica: int
    ) -> None:
        self._path = path
        self._files = files
        self._cluster_id = cluster_id
        self._replica = replica

    def run(self, bounds: Mapping[str, int]) -> Useless | None:
        """What is wrong with the state, if anything is; `bounds` (bytes) are those of the files.

        Raises MissingData, DamagedLog, TooLarge, WrongDirectory, WrongFormat, StorageFailure,
        OSError.
        """
        for name, file in self._files.items():
            if file.exists() and file.stat().st_size > bounds[name]:
                raise TooLarge(
                    f"{file} has {file.stat().st_size} bytes, more than the {bounds[name]} of its "
                    "bound: start with a larger one (--max-disk)"
                )
        whole = take_note(self._path, self._files)
        with ExitStack() as stack:
            going_on = {
                name: Examination(name, file)
                for name, file in self._files.items()
                if name not in whole and file.exists() and file.stat().st_size
            }
            for examination in going_on.values():
                stack.callback(examination.cancel)
            if LOG not in whole:
                self._judge_log(going_on.get(LOG))
            return None if STATE in whole else self._judge_state(going_on.get(STATE))

    def _judge_log(self, examination: Examination | None) -> None:
        place = self._path / LOG
        if not self._files[LOG].exists():
            raise MissingData(
                f"{place} has lost its data while the rest of {self._path} is still there: put it "
                f"back, or {START_ANEW}"
            )
        findings = examination.findings() if examination else Findings()
        self._check_identity(place, findings)
        if findings.damage:
            raise DamagedLog(f"{place}: the file is damaged ({findings.damage}): {START_ANEW}")
        if findings.identity is None:
            raise MissingData(
                f"{place} has been emptied: it does not say whose data it holds; put it back, or "
                f"{START_ANEW}"
            )

    def _judge_state(self, examination: Examination | None) -> Useless | None:
        place = self._path / STATE
        if not self._files[STATE].exists():
            return Useless(f"{place} has lost its data", False)
        findings = examination.findings() if examination else Findings()
        self._check_identity(place, findings)
        if findings.damage:
            return Useless(f"{place}: the file is damaged ({findings.damage})", True)
        if findings.identity is None:
            return Useless(f"{place} has been emptied", False)
        return None

    def _check_identity(self, place: Path, findings: Findings) -> None:
        if findings.identity is not None:
            check_identity(findings.identity, str(place), self._cluster_id, self._replica)
