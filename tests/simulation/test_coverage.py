"""What the seeds are meant to bring about, they do bring about."""

from collections import Counter

from pbft.core.quorum import Quorum
from pbft.simulation.runner import run
from pbft.simulation.scenario import scenario_of

SEEDS = range(1, 33)
EVENTS = (
    "batch-served",
    "checkpoint-stable",
    "conflict",
    "power-cut",
    "quota-refused",
    "read-answered",
    "read-refused",
    "session-expired",
    "state-transfer-finished",
    "view-entered",
)


def test_the_events_that_matter_occur_in_a_few_seeds() -> None:
    seen = Counter[str]()
    for seed in SEEDS:
        seen.update(run(scenario_of(seed)).counts.keys())
        rare = {event: seen[event] for event in EVENTS if seen[event] < 3}
        if not rare:
            break
    assert not rare


def test_the_suite_has_every_kind_of_scenario() -> None:
    scenarios = [scenario_of(seed) for seed in range(1, 301)]
    assert sum(scenario.ed25519 for scenario in scenarios) >= 15  # 5 %
    assert {Quorum(scenario.replicas).f for scenario in scenarios} == {1, 2}
    assert {scenario.replicas for scenario in scenarios} == {4, 5, 6, 7}
    for what in ("twins", "faulty", "double_talk", "shared_key"):
        assert 30 <= sum(bool(getattr(scenario, what)) for scenario in scenarios) <= 270
