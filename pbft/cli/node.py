"""`pbft node`: one replica in the foreground."""

import asyncio
import signal
import sys
from pathlib import Path

import click
import uvloop

from pbft.cli.errors import CliError
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.config_keys import load_replica_signer
from pbft.core.context import Context
from pbft.faults.modes import check_modes, wrap
from pbft.faults.switch import Switch
from pbft.node.logs import configure, log
from pbft.node.ports import Transport
from pbft.node.service import DEFAULT_APPLICATION, Wrapper, load_application, serve
from pbft.storage.data_directory import open_data_directory


class FaultyWrapper(Wrapper, frozen=True):
    """Puts faulty-node modes between the node and its network."""

    modes: str
    dormant: bool

    def wrap(self, context: Context, transport: Transport) -> Transport:
        """The faulty transport; its choices follow from the replica's number."""
        switch = Switch(transport, wrap(self.modes, context, transport, context.id))
        switch.on = not self.dormant
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._toggle, switch)
        return switch

    def _toggle(self, switch: Switch) -> None:
        switch.toggle()
        log("faulty-mode", mode=self.modes, on=switch.on)


@click.command(name="node")
@click.option("--replica", type=click.IntRange(min=0), required=True, help="Which replica to run.")
@click.option("--keys", type=click.Path(path_type=Path), required=True, help="Where the keys are.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Its data directory.")
@click.option("--app", default=DEFAULT_APPLICATION, show_default=True, help="module:Class to run.")
@click.option("--faulty", metavar="MODE", help="Misbehave (lab clusters only), e.g. lie.")
@click.option("--dormant", is_flag=True, help="Misbehave only after SIGUSR1, which toggles it.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
def node(
    replica: int,
    keys: Path,
    data: Path,
    app: str,
    faulty: str | None,
    dormant: bool,
    metrics: str | None,
) -> None:
    """Run one replica in the foreground until SIGTERM or Ctrl-C."""
    config = load_cluster(keys / "cluster.toml")
    if replica >= len(config.replicas):
        raise CliError(f"there is no replica {replica}: the cluster has {len(config.replicas)}")
    wrapper = faulty_wrapper(config, faulty, dormant=dormant)
    signer = load_replica_signer(config, keys, replica)
    sys.path.insert(0, str(Path.cwd()))  # an application of one's own lies where one stands
    machine = load_application(app)
    configure()
    directory = open_data_directory(data, config.cluster_id, replica, fresh_ok=True)
    try:
        reason = uvloop.run(
            serve(config, replica, signer, directory, machine, wrapper, _endpoint(metrics))
        )
    finally:
        directory.close()
    if reason is not None:
        raise CliError(f"replica {replica} stopped: {reason}")


def faulty_wrapper(config: ClusterConfig, modes: str | None, *, dormant: bool = False) -> Wrapper:
    """The wrapper for `--faulty`; only in a cluster that was made for it."""
    if modes is None:
        return Wrapper()
    if not config.lab:
        raise CliError("faulty modes run only in a cluster made with `pbft keygen --lab`")
    check_modes(modes)
    return FaultyWrapper(modes, dormant)


def _endpoint(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise CliError(f"--metrics wants HOST:PORT, not {text}")
    return host, int(port)
