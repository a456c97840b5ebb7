"""Whole clusters on seeds: f = 1 and f = 2, faults and faulty replicas drawn from the seed."""

import pytest

from pbft.simulation.runner import run
from pbft.simulation.scenario import scenario_of

SEEDS = 300
PER_TEST = 10


@pytest.mark.parametrize("first", range(1, SEEDS, PER_TEST))
def test_every_check_holds_on_seeds(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        outcome = run(scenario_of(seed))
        replay = f"replay it with: pbft simulate --seed {seed}"
        assert not outcome.failures, (*outcome.failures, replay)
