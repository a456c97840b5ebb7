"""One seed, one run: whatever the process, and however it hashes strings."""

import os
import re
import subprocess
import sys

import pytest

from pbft.simulation.runner import run
from pbft.simulation.scenario import scenario_of

ED25519 = 16  # a seed whose signatures are real ones


@pytest.mark.parametrize("seed", [7, 11, ED25519])
def test_two_runs_of_a_seed_are_the_same(seed: int) -> None:
    assert run(scenario_of(seed)) == run(scenario_of(seed))


def test_two_seeds_are_two_runs() -> None:
    hashes = {run(scenario_of(seed)).trace_hash for seed in range(1, 4)}
    assert len(hashes) == 3


@pytest.mark.parametrize("options", [("--seed", "7"), ("--seed", "12", "--replicas", "7")])
def test_a_seed_has_one_trace_under_every_hash_seed(options: tuple[str, ...]) -> None:
    traces = {traced(options, hash_seed) for hash_seed in ("0", "4242")}
    assert len(traces) == 1


def traced(options: tuple[str, ...], hash_seed: str) -> str:
    """What another process says of the run, down to the hash of its trace."""
    command = [sys.executable, "-m", "pbft.cli.main", "simulate", *options]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"trace [0-9a-f]{16}\n", done.stdout)
    return done.stdout
