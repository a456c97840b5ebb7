"""What `pbft soak` measures of memory and disk, and when that has failed."""

import mmap
import os
from pathlib import Path

import pytest

from pbft.cli.soak_checks import CheckFailed
from pbft.cli.soak_figures import JUDGED_EPOCHS, MIB, Gauge, memory_bytes


def test_more_memory_or_disk_than_is_allowed_has_failed() -> None:
    gauge = Gauge("memory", 100 * MIB)
    gauge.sample({0: 10 * MIB, 1: 100 * MIB})
    with pytest.raises(CheckFailed, match="the memory of replica 2 has grown to 101 MiB: more"):
        gauge.sample({2: 101 * MIB})


def test_growth_is_told_of_the_second_half(monkeypatch: pytest.MonkeyPatch) -> None:
    now, gauge = 0.0, Gauge("disk", 100 * MIB)
    monkeypatch.setattr("time.monotonic", lambda: now)
    for size in (10, 50, 51, 52):
        gauge.sample({0: 90 * MIB})
        gauge.sample({0: 5 * MIB, 1: size * MIB})
        gauge.mark()
        now += 360.0
    assert gauge.figures() == {
        "first": 10.0,
        "last": 52.0,
        "max": 90.0,
        "bound": 100,
        "growth_per_hour": 10.0,
        "ends": [10.0, 50.0, 51.0, 52.0],
    }


def ended(*sizes: float) -> Gauge:
    gauge = Gauge("disk", 10_000 * MIB)
    for size in sizes:
        gauge.sample({0: MIB, 1: round(size * MIB)})
        gauge.mark()
    return gauge


def test_what_grows_steadily_has_failed_long_before_its_bound() -> None:
    with pytest.raises(CheckFailed, match="the disk of a replica goes on growing: at most 96 MiB"):
        ended(*range(16, 16 * 100, 16))


@pytest.mark.parametrize("kept", [1, 20, 400])
def test_what_fills_up_and_then_stays_is_well(kept: int) -> None:
    ended(*(kept * min(1.0, 0.2 + epoch / JUDGED_EPOCHS) for epoch in range(100)))
    ended(*(kept + 20 * (epoch % 7 == 6) for epoch in range(100)))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells")
def test_a_file_that_is_mapped_is_no_memory_of_the_process_but_what_it_allocates_is(
    tmp_path: Path,
) -> None:
    def now() -> float:
        return memory_bytes({3: os.getpid()})[3] / MIB

    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    with (tmp_path / "file").open("rb") as file:
        before = now()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert now() - before < 16
        held = bytearray(64 * MIB)
        assert now() - before > 48
        del held
        mapped.close()


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert memory_bytes({1: 1 << 30}) == {}
