"""Replicas as child processes of this one: for `pbft cluster` and `pbft demo`."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from pbft.cli.errors import CliError

STOP_SECONDS = 10.0


class ReplicaProcesses:
    """Starts, kills and stops `pbft node` processes, one per replica."""

    def __init__(self, keys: Path, data: Path, app: str | None, log: IO[bytes] | None) -> None:
        self._keys = keys
        self._data = data
        self._app = app
        self._log = log
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, replica: int, faulty: str | None = None, *, dormant: bool = False) -> None:
        """Start one replica, with faulty modes (`dormant`: until `toggle`) or without."""
        command = [sys.executable, "-m", "pbft.cli.main", "node", "--replica", str(replica)]
        command += ["--keys", str(self._keys)]
        command += ["--data", str(self._data / f"replica-{replica}")]
        command += ["--app", self._app] if self._app else []
        command += ["--faulty", faulty] if faulty else []
        command += ["--dormant"] if dormant else []
        self._running[replica] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self, replica: int) -> None:
        """SIGKILL: no chance to tidy up."""
        process = self._running.pop(replica)
        process.kill()
        process.wait()

    def toggle(self, replica: int) -> None:
        """Turn a dormant faulty mode on, or off again."""
        self._running[replica].send_signal(signal.SIGUSR1)

    def stop(self, replica: int) -> None:
        """SIGTERM, and wait until it is gone."""
        self._end([self._running.pop(replica)])

    def stop_all(self) -> None:
        """Stop whatever still runs."""
        running = list(self._running.values())
        self._running.clear()
        self._end(running)

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_any(self) -> tuple[int, int]:
        """Wait until a replica ends by itself; its number and exit code."""
        while True:
            for replica, process in self._running.items():
                try:
                    return replica, process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue

    def forget(self, replica: int) -> None:
        """It has ended."""
        del self._running[replica]

    def __len__(self) -> int:
        return len(self._running)


def parse_faulty(settings: tuple[str, ...], replicas: int) -> dict[int, str]:
    """`2=lie` and the like, as a mapping from replica to modes."""
    faulty: dict[int, str] = {}
    for setting in settings:
        number, _, modes = setting.partition("=")
        if not number.isdigit() or not modes or int(number) >= replicas:
            raise CliError(f"--faulty wants REPLICA=MODE, for instance 2=lie, not {setting}")
        faulty[int(number)] = modes
    return faulty
