"""Carries out the steps of a plan on the processes of `pbft soak`, and tells the log of each."""

import time
from collections.abc import Iterable

from pbft.cli.laboratory import Laboratory
from pbft.cli.soak_figures import Figures
from pbft.cli.soak_log import note
from pbft.cli.soak_plan import Act, Kind, Step
from pbft.core.quorum import Quorum


class Trouble:
    """Who runs, who is stopped, and who has just been started."""

    def __init__(self, lab: Laboratory, figures: Figures) -> None:
        self._lab, self._processes = lab, lab.processes
        self._figures = figures
        self._quorum = Quorum(len(lab.replicas)).q
        self._stopped: set[int] = set()
        self.started: dict[int, float] = {}  # when, in seconds since 1970

    def take(self, step: Step) -> None:
        """Do to the replicas of `step` what makes sense for each (not WIPE)."""
        running = self._processes.pids.keys()
        match step.act:
            case Act.KILL:
                self.kill([r for r in step.replicas if r in running], step.kind)
            case Act.START:
                self._start(r for r in step.replicas if r not in running)
            case Act.STOP:
                self._stop(r for r in step.replicas if r in running - self._stopped)
            case Act.CONTINUE:
                self._continue(r for r in step.replicas if r in self._stopped)

    def repair(self) -> None:
        """Let every replica run."""
        self._continue(sorted(self._stopped))
        self._start(r for r in self._lab.replicas if r not in self._processes.pids)

    def kill(self, replicas: list[int], kind: Kind) -> None:
        """SIGKILL all of them at once."""
        if not replicas:
            return
        self._note("kill", replicas=_joined(replicas), kind=kind.name.lower())
        self._processes.kill(*replicas)
        self._figures.kills[kind.value] += len(replicas)
        self._stopped.difference_update(replicas)
        self._changed()

    def _start(self, replicas: Iterable[int]) -> None:
        for replica in replicas:
            self._note("start", replica=replica)
            self.started[replica] = time.time()
            self._processes.start(replica)
        self._changed()

    def _stop(self, replicas: Iterable[int]) -> None:
        for replica in list(replicas):
            self._note("stop", replica=replica)
            self._processes.freeze(replica)
            self._stopped.add(replica)
            self._figures.stops += 1
        self._changed()

    def _continue(self, replicas: Iterable[int]) -> None:
        for replica in list(replicas):
            self._note("continue", replica=replica)
            self._processes.thaw(replica)
            self._stopped.discard(replica)
        self._changed()

    def _note(self, event: str, **fields: object) -> None:
        note(self._lab.log, event, **fields)

    def _changed(self) -> None:
        self._figures.quorum(len(self._processes) - len(self._stopped) >= self._quorum)


def _joined(replicas: list[int]) -> str:
    return ",".join(map(str, replicas))
