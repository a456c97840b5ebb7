"""`pbft soak`: a short one passes, and one whose cluster is tampered with does not."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from client.client import Client
from client.kv import KV
from pbft.apps.kv_codec import prefix_end
from pbft.cli.soak_load import LEDGER
from tests.processes.running import COMMAND, POLL_SECONDS, WAIT_SECONDS


def pids(data: Path) -> list[int]:
    """The processes that hold, or held, the replicas' directories."""
    return [int(lock.read_text() or 0) for lock in data.glob("data/replica-*/in-use.lock")]


def runs(pid: int) -> bool:
    """Whether that process is there, and no zombie."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def signal_all(processes: list[int], number: signal.Signals) -> None:
    """Send it to those that are still there."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_SECONDS)


async def gone(processes: list[int]) -> None:
    """Wait until none of them runs."""
    await eventually(lambda: not any(map(runs, processes)))


@contextmanager
def soak(data: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """`pbft soak` in a process of its own."""
    command = [*COMMAND, "soak", "--data", str(data), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def at_work(data: Path) -> AsyncIterator[KV]:
    """The store of a soak, once one of its clients has written something to its ledger."""
    files = data / "keys" / "cluster.toml", data / "keys" / "client-0.pem"
    await eventually(files[0].exists)
    async with Client.connect(*files) as client:
        kv = KV(client)
        deadline = time.monotonic() + WAIT_SECONDS
        while not (await kv.prefix(LEDGER, limit=1)).kvs:
            assert time.monotonic() < deadline
        yield kv


@pytest.mark.rule("R39")
@pytest.mark.rule("R40")
def test_a_short_soak_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    ended = subprocess.run(
        [*COMMAND, "soak", "--kills", "6", "--seed", "5", "--json", "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert json.loads(report.read_text()) == figures
    assert figures["verdict"] == "every check holds"
    assert figures["kills"] == sum(figures["kills_by_kind"].values()) >= 6
    assert figures["operations"] > 50
    assert {"put", "get", "delete", "cas", "ledger put"} <= figures["operations_by_kind"].keys()
    assert figures["restart_s"]["count"] >= 4
    assert 0 < figures["memory_mib"]["last"] < figures["memory_mib"]["bound"]
    assert 0 < figures["disk_mib"]["last"] < figures["disk_mib"]["bound"]
    assert list(tmp_path.iterdir()) == [report]


def test_an_acknowledged_write_that_is_lost_is_reported_and_everything_is_kept(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"

    async def lose() -> None:
        async with at_work(data) as kv:
            await kv.delete_range(LEDGER, prefix_end(LEDGER))

    with soak(data, "--minutes", "0.15") as process:
        asyncio.run(lose())
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "FAILED" in output
    sentence = errors.splitlines()[-1]
    assert sentence.startswith("pbft: the soak failed: ")
    assert "lost: ledger/000000/" in sentence
    assert sentence.endswith(f"keys, data and replicas.log are kept in {data}")
    assert (data / "data" / "replica-3" / "log" / "data.mdb").exists()
    assert "soak-kill" in (data / "replicas.log").read_text()
    asyncio.run(gone(pids(data)))


def test_a_replica_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def end_one() -> None:
        async with at_work(data):
            os.kill(pids(data)[0], signal.SIGTERM)

    with soak(data, "--minutes", "1") as process:
        asyncio.run(end_one())
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "has ended by itself, with exit code 0" in errors
    asyncio.run(gone(pids(data)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"

    async def interrupt(process: "subprocess.Popen[str]") -> None:
        async with at_work(data):
            process.send_signal(number)

    with soak(data, "--minutes", "1") as process:
        asyncio.run(interrupt(process))
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in output
    assert "Traceback" not in errors
    assert "nothing has failed" in errors.splitlines()[-1]
    asyncio.run(gone(pids(data)))


def test_no_replica_outlives_a_soak_that_is_killed_even_if_it_is_stopped(tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def kill(process: "subprocess.Popen[str]") -> None:
        async with at_work(data):
            replicas = [pid for pid in pids(data) if runs(pid)]
            assert replicas
            signal_all(replicas, signal.SIGSTOP)
            process.kill()
            try:
                await gone(replicas)
            finally:
                signal_all(replicas, signal.SIGKILL)

    with soak(data, "--minutes", "1") as process:
        asyncio.run(kill(process))
