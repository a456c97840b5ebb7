"""`pbft simulate`: seeds from the command line, and what it says of those that fail."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from pbft.cli.main import main
from pbft.simulation.runner import Outcome, run
from pbft.simulation.scenario import Scenario

SUMMARY = r"{} seeds?, {} failures?, \d+ view changes?, [1-9]\d* operations, [1-9]\d*\.\d virtual"
PROC = Path("/proc")
needs_proc = pytest.mark.skipif(
    not PROC.joinpath("self/task").exists(), reason="finds the workers through /proc"
)


def simulate(*options: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *options], prog_name="pbft")


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    while STARTED:
        with suppress(ProcessLookupError):
            os.killpg(STARTED.pop().pid, signal.SIGKILL)


def started(*options: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell would start it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        STARTED.append(
            subprocess.Popen(
                [sys.executable, "-m", "pbft.cli.main", "simulate", *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
    finally:
        signal.signal(signal.SIGINT, before)
    return STARTED[-1]


def test_one_seed_shows_its_figures_and_its_trace() -> None:
    result = simulate("--seed", "7")
    assert result.exit_code == 0, result.output
    assert re.match(r"seed 7: \d+ batches, .*, trace [0-9a-f]{16}\n", result.stdout)
    assert re.search(SUMMARY.format(1, 0), result.stdout)


def test_many_seeds_end_with_one_line_about_all_of_them() -> None:
    process = started("--seeds", "3", "--first", "5")
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert re.fullmatch(SUMMARY.format(3, 0) + " seconds\n", output)


def test_replicas_and_faulty_modes_take_the_place_of_the_seeds_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Scenario] = []

    def watched(scenario: Scenario) -> Outcome:
        seen.append(scenario)
        return run(scenario)

    monkeypatch.setattr("pbft.cli.simulate.run", watched)
    assert simulate("--seed", "3", "--replicas", "7", "--faulty", "2=lie").exit_code == 0
    assert simulate("--seed", "3", "--faulty", "1=mute+lie").exit_code == 0
    assert [(s.seed, s.replicas, s.faulty) for s in seen] == [
        (3, 7, ((2, "lie"),)),
        (3, 4, ((1, "mute+lie"),)),
    ]


def test_a_failing_seed_prints_exactly_one_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(scenario: Scenario) -> Outcome:
        return replace(run(scenario), failures=("agreement: none", "validity: none"))

    monkeypatch.setattr("pbft.cli.simulate.run", failing)
    options = ("--seed", "3", "--replicas", "7", "--faulty", "2=lie", "--faulty", "0=mute")
    result = simulate(*options)
    assert result.exit_code == 1
    assert result.stderr == "pbft: 1 of 1 seed failed\n"
    assert "seed 3 FAILED: agreement: none\nseed 3 FAILED: validity: none\n" in result.stdout
    assert re.search(SUMMARY.format(1, 1), result.stdout)
    commands = re.findall(r"^replay it with: pbft simulate (.*)$", result.stdout, re.MULTILINE)
    assert commands == ["--seed 3 --replicas 7 --faulty 0=mute --faulty 2=lie"]
    assert simulate(*commands[0].split()).stdout == result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "give either --seed N or --seeds COUNT"),
        (("--seed", "1", "--seeds", "2"), "give either --seed N or --seeds COUNT"),
        (("--seed", "1", "--first", "2"), "--first goes with --seeds COUNT, not with --seed N"),
        (("--seed", "-1"), "invalid value for '--seed': -1 is not in the range"),
        (("--seed", "x"), "invalid value for '--seed': 'x' is not a valid"),
        (("--seeds", "0"), "invalid value for '--seeds': 0 is not in the range"),
        (("--seeds", "2", "--first", "-1"), "invalid value for '--first': -1 is not in"),
        (("--seed", "1", "--replicas", "3"), "invalid value for '--replicas': 3 is not in"),
        (("--seed", "1", "--faulty", "lie"), "--faulty wants REPLICA=MODE, for instance 2=lie"),
        (("--seed", "1", "--faulty", "4=lie"), "there are only replicas 0 to 3"),
        (("--seed", "1", "--faulty", "1=nap"), "there is no faulty mode 'nap'; there are: "),
        (
            ("--seed", "1", "--faulty", "1=lie", "--faulty", "2=lie"),
            "--faulty names 2 replicas, and 4 replicas tolerate 1",
        ),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told_in_one_sentence(
    options: tuple[str, ...], sentence: str
) -> None:
    result = simulate(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("pbft: ")
    assert sentence in result.stderr
    assert result.stderr.endswith("see `pbft simulate --help`\n")
    assert result.stderr.count("\n") == 1


# --- processes -------------------------------------------------------------------------------


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes of the command, as soon as the first has been started wholly."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        children = PROC.joinpath(f"{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(child) for child in children if b"spawn_main" in command_of(child)]
        if len(workers) >= min(2, os.cpu_count() or 1):
            return workers
        time.sleep(0.01)
    raise AssertionError(f"no worker has been started: {process.communicate()}")


def command_of(child: str) -> bytes:
    try:
        return PROC.joinpath(child, "cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@needs_proc
def test_ctrl_c_ends_it_with_a_sentence_and_leaves_no_worker_behind() -> None:
    process = started("--seeds", "1000000000")
    workers = workers_of(process)
    signal_group(process)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"pbft: interrupted after \d+ of 1000000000 seeds\n", errors)
    assert re.match(r"\d+ seeds?, 0 failures", output)
    assert [worker for worker in workers if b"spawn_main" in command_of(str(worker))] == []


def signal_group(process: subprocess.Popen[str]) -> None:
    """What a terminal does on Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def test_ctrl_c_ends_one_seed_with_a_sentence_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_scenario: Scenario) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr("pbft.cli.simulate.run", interrupted)
    result = simulate("--seed", "3")
    assert result.exit_code == 130
    assert result.stderr == "pbft: interrupted after 0 of 1 seeds\n"


@needs_proc
def test_a_worker_that_is_killed_is_told_in_one_sentence() -> None:
    process = started("--seeds", "1000000000")
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.fullmatch(r"pbft: a worker process has died after \d+ of 1000000000 .*\n", errors)
