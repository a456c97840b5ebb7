"""Replicas as child processes of this one: for `pbft cluster`, `pbft demo` and `pbft soak`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from pbft.cli.errors import CliError
from pbft.cli.options import parse_number

STOP_SECONDS = 10.0
MIB = 1024**2


class ReplicaProcesses:
    """Starts, kills and stops `pbft node` processes, one per replica; none outlives this one."""

    def __init__(
        self,
        keys: Path,
        data: Path,
        app: str | None,
        log: IO[bytes] | None,
        *,
        max_disk: int | None = None,
    ) -> None:
        self._keys = keys
        self._data = data
        self._app = app
        self._max_disk = max_disk
        self._log = log
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, replica: int, faulty: str | None = None, *, dormant: bool = False) -> None:
        """Start one replica, with faulty modes (`dormant`: until `toggle`) or without."""
        command = [sys.executable, "-m", "pbft.cli.child", str(os.getpid())]
        command += ["node", "--replica", str(replica), "--keys", str(self._keys)]
        command += ["--data", str(self._data / f"replica-{replica}")]
        command += ["--app", self._app] if self._app else []
        command += [f"--max-disk={self._max_disk // MIB}M"] if self._max_disk is not None else []
        command += ["--faulty", faulty] if faulty else []
        command += ["--dormant"] if dormant else []
        self._running[replica] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def running(self) -> dict[int, int]:
        """The process ids of all that were started and not stopped, by replica."""
        return {replica: process.pid for replica, process in self._running.items()}

    @property
    def pids(self) -> dict[int, int]:
        """The process id of each replica that runs."""
        return {replica: process.pid for replica, process in self._running.items()}

    def kill(self, *replicas: int) -> None:
        """SIGKILL, all at once: no chance to tidy up."""
        processes = [self._running.pop(replica) for replica in replicas]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def freeze(self, replica: int) -> None:
        """SIGSTOP: it does nothing, and its connections stay open."""
        self._running[replica].send_signal(signal.SIGSTOP)

    def thaw(self, replica: int) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._running[replica].send_signal(signal.SIGCONT)

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
            process.send_signal(signal.SIGCONT)
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def take_ended(self) -> list[tuple[int, int]]:
        """The replicas that have ended by themselves, and their exit codes; each is told once."""
        codes = {replica: process.poll() for replica, process in self._running.items()}
        ended = [(replica, code) for replica, code in codes.items() if code is not None]
        for replica, _ in ended:
            del self._running[replica]
        return ended

    def __len__(self) -> int:
        return len(self._running)


def parse_faulty(settings: tuple[str, ...], replicas: int) -> dict[int, str]:
    """`2=lie` and the like, as a mapping from replica to modes. Raises CliError."""
    faulty: dict[int, str] = {}
    for setting in settings:
        digits, _, modes = setting.partition("=")
        number = parse_number(digits)
        if number is None or not modes:
            raise CliError(f"--faulty wants REPLICA=MODE, for instance 2=lie, not {setting!r}")
        if number >= replicas:
            raise CliError(f"--faulty {setting}: there are only replicas 0 to {replicas - 1}")
        if number in faulty:
            both = f"{number}={faulty[number]}+{modes}"
            raise CliError(f"--faulty names replica {number} twice: for both modes give {both}")
        faulty[number] = modes
    return faulty
