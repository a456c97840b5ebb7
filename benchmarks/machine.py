"""What this machine can do, and how busy it is."""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context

from msgspec import Struct

from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.core.quorum import Quorum

SECONDS = 1.0  # of each measurement
CHUNK = 32  # calls between two looks at the clock
MESSAGE_BYTES = 240  # about a request with a 100-byte value
BUSY_LOAD = 0.15  # per core, before the start: above this the figures are no good
DOMAIN = b"benchmark"


class Calibration(Struct, frozen=True):
    """Signatures per second of one core while all cores are at it, and a small durable write."""

    cores: int
    verify_per_second: float
    sign_per_second: float
    fdatasync_ms: float

    def ceiling(self, quorum: Quorum) -> float:
        """Requests per second if nothing but clients' and reply signatures took any time.

        Each request is signed once, verified by every replica, and its client verifies the replies
        of a weak quorum; the signatures of votes and replies are shared by a batch.
        """
        verifications = quorum.n + quorum.w
        seconds = verifications / self.verify_per_second + 1 / self.sign_per_second
        return self.cores / seconds


def calibrate() -> Calibration:
    """Measure, with all cores busy at once."""
    cores = core_count()
    with get_context("spawn").Pool(cores) as pool:
        rates = pool.map(_signature_rates, range(cores), chunksize=1)
    verify, sign = (statistics.median(rate) for rate in zip(*rates, strict=True))
    return Calibration(cores, round(verify), round(sign), round(_fdatasync_ms(), 3))


def core_count() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _signature_rates(_number: int) -> tuple[float, float]:
    signer, verifier = Ed25519Signer(os.urandom(32)), Ed25519Verifier()
    message = os.urandom(MESSAGE_BYTES)
    signature, key = signer.sign(DOMAIN, message), signer.public_key
    verify = _rate(lambda: verifier.verify(key, DOMAIN, message, signature))
    return verify, _rate(lambda: signer.sign(DOMAIN, message))


def _rate(call: Callable[[], object]) -> float:
    start, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < SECONDS:
        for _ in range(CHUNK):
            call()
        calls += CHUNK
    return calls / passed


def _fdatasync_ms(writes: int = 200, size: int = 4096) -> float:
    times = []
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        for _ in range(writes):
            file.write(os.urandom(size))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def load_per_core() -> float:
    """The load average of the last minute, divided by the cores."""
    return os.getloadavg()[0] / core_count()


def description() -> str:
    """Processor, kernel and Python in a few words."""
    return f"{_processor()}, {platform.system()} {platform.release()}, Python " + (
        platform.python_version()
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def stolen_share(before: list[int], after: list[int]) -> float:
    """Which part of the cores' time others took between two `core_ticks`, 0 where unknown."""
    passed = [late - early for early, late in zip(before, after, strict=True)]
    steal = passed[7] if len(passed) > 7 else 0
    return steal / sum(passed) if sum(passed) else 0.0


def core_ticks() -> list[int]:
    """The kernel's account of the cores' time: user, nice, system, idle, iowait, ..., steal."""
    try:
        with open("/proc/stat") as lines:
            return [int(field) for field in lines.readline().split()[1:9]]
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """The processor time of a process so far, 0 where it cannot be known."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
