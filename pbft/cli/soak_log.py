"""The log of a soak, read while it is written: by all replicas, and by the soak itself."""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pbft.cli.soak_checks import CheckFailed

STARTED = re.compile(r"^(\S+)Z info replica-started replica=(\d+) ")
EVENT = re.compile(r"^\S+Z \w+ (view-entered|state-transfer-finished) ")
FATAL = re.compile(r"^\S+Z error (state-diverged|state-tree) .*|^Traceback.*|^pbft: .*")
TIME = "%Y-%m-%dT%H:%M:%S.%f"


def note(log: IO[bytes], event: str, **fields: object) -> None:
    """Write a line of the soak's own, so that the log tells what was done to the replicas."""
    time = datetime.now(UTC).strftime(TIME)[:-3]
    pairs = "".join(f" {key}={value}" for key, value in fields.items())
    log.write(f"{time}Z info soak-{event}{pairs}\n".encode())


class LogReader:
    """Takes the new lines; `events` counts those that are of interest."""

    def __init__(self, path: Path, events: Counter[str]) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self._events = events

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def take(self) -> list[tuple[int, float]]:
        """The replicas that have started since, and when (seconds since 1970).

        Raises CheckFailed for a line that no replica may write here.
        """
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        started = []
        for line in lines:
            text = line.decode("utf-8", "replace")
            if FATAL.match(text):
                raise CheckFailed(f"a replica says: {text.removeprefix('pbft: ')}")
            if event := EVENT.match(text):
                self._events[event[1]] += 1
            if found := STARTED.match(text):
                when = datetime.strptime(found[1], TIME).replace(tzinfo=UTC)
                started.append((int(found[2]), when.timestamp()))
        return started
