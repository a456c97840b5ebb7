"""How often a mode has misbehaved can be read where all other counters are."""

import json

import pytest

from pbft.faults.modes import MODES
from pbft.node.metrics import NodeCollector


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_s_counter_stands_in_the_status_and_among_the_metrics(run, mode):
    node = run({0: mode}).cluster.machines[0].node
    fired = json.loads(node.report())["counters"][f"faulty-{mode}"]
    assert fired > 0
    samples = [sample for metric in NodeCollector(node).collect() for sample in metric.samples]
    assert fired in [s.value for s in samples if s.labels == {"reason": f"faulty-{mode}"}]
