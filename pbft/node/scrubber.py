"""When the disk is read again in the background: seldom enough that nobody notices (R41).

It works for at most a millisecond or so at a time, between two turns, and rests for a hundred times
as long as it has worked: less than 1 % of one processor, whatever there is to read.
"""

import time
from collections.abc import Callable

from pbft.storage.data_directory import DataDirectory
from pbft.storage.database import CorruptRecord
from pbft.storage.scrub import Progress, Scrub

SLICE_SECONDS = 0.001
REST = 150
MIN_REST_SECONDS = 0.1


class Scrubber:
    """Scrubs the data directory of a replica that runs."""

    def __init__(self, data: DataDirectory, clock: Callable[[], float] = time.perf_counter) -> None:
        self._data = data
        self._scrub = Scrub(data.state, data.log)
        self._clock = clock

    @property
    def progress(self) -> Progress:
        """What was read so far."""
        return self._scrub.progress

    def work(self) -> float:
        """Read a little; returns for how long (s) to rest. Raises CorruptRecord, StorageFailure."""
        began = now = self._clock()
        passes = self.progress.passes
        while now - began < SLICE_SECONDS and self.progress.passes == passes:
            try:
                self._scrub.step()
            except CorruptRecord:
                self._data.distrust()
                raise
            now = self._clock()
        return max(MIN_REST_SECONDS, REST * (now - began))
