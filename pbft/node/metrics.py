"""Counters and positions for Prometheus, over HTTP (`pbft node --metrics HOST:PORT`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pbft.node.memory import private_bytes
from pbft.node.turn import Node


class NodeCollector(Collector):
    """Reads a node's numbers when it is asked; it only reads integers, so no lock is needed."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """The metrics, as of now."""
        core = self._node.core
        gauges = {
            "pbft_view": ("The current view", core.views.view),
            "pbft_last_executed": ("The last executed sequence number", core.queue.executed),
            "pbft_stable_checkpoint": ("The stable checkpoint", core.checkpoints.stable_seq),
            "pbft_state_bytes": ("The size of the state", self._node.store.application.size.most),
            "pbft_pending_requests": ("Requests that wait to be ordered", len(core.pool)),
        }
        memory = private_bytes()
        if memory is not None:
            gauges["pbft_memory_bytes"] = ("Memory without mapped files", memory)
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        events = CounterMetricFamily("pbft_events", "What was dropped or seen", labels=["reason"])
        for reason, count in sorted(dict(self._node.counters).items()):
            events.add_metric([reason], count)
        yield events


@contextmanager
def serve_metrics(node: Node, host: str, port: int) -> Iterator[None]:
    """Serve them while the context lasts. Raises OSError if the address cannot be had."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
