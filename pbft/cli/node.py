"""`pbft node`: one replica in the foreground."""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import click
import uvloop

from pbft.apps.state_machine import StateMachine
from pbft.cli.errors import CliError
from pbft.cli.options import (
    app_option,
    folder_option,
    keys_option,
    max_disk_option,
    parse_endpoint,
    show_endpoint,
)
from pbft.config import ClusterConfig, ReplicaInfo
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE, load_replica_signer
from pbft.core.context import Context
from pbft.faults.modes import MODES, check_modes, wrap
from pbft.faults.switch import Switch
from pbft.node.logs import configure, log
from pbft.node.ports import Transport
from pbft.node.service import (
    DEFAULT_APPLICATION,
    ApplicationNotFound,
    Wrapper,
    load_application,
    serve,
)
from pbft.node.space import room_within
from pbft.storage.data_directory import open_data_directory


class FaultyWrapper(Wrapper, frozen=True):
    """Puts faulty-node modes between the node and its network."""

    modes: str
    dormant: bool

    def wrap(self, context: Context, transport: Transport, counters: Counter[str]) -> Transport:
        """The faulty transport; `counters` tell how often it misbehaved."""
        switch = Switch(transport, wrap(self.modes, context, transport, counters))
        switch.on = not self.dormant
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._toggle, switch)
        return switch

    def _toggle(self, switch: Switch) -> None:
        switch.toggle()
        log("faulty-mode", mode=self.modes, on=switch.on)


@click.command(name="node")
@click.option("--replica", type=click.IntRange(min=0), required=True, help="Which replica to run.")
@keys_option
@folder_option("--data", "The data folder of this replica alone; made if it is not there.")
@app_option
@max_disk_option
@click.option("--faulty", metavar="MODE", help=f"Misbehave (lab clusters only): {', '.join(MODES)}")
@click.option("--dormant", is_flag=True, help="Misbehave only after SIGUSR1, which toggles it.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
def node(
    replica: int,
    keys: Path,
    data: Path,
    app: str | None,
    max_disk: int | None,
    faulty: str | None,
    dormant: bool,
    metrics: str | None,
) -> None:
    """Run one replica in the foreground until SIGTERM or Ctrl-C.

    Log lines go to standard error. Exit code 0 if it was asked to stop, 1 if it had to.
    """
    if dormant and faulty is None:
        raise CliError("--dormant says when to misbehave: give --faulty as well")
    config = load_cluster(keys / CLUSTER_FILE)
    signer = load_replica_signer(config, keys, replica)
    wrapper = faulty_wrapper(config, faulty, dormant=dormant)
    machine = application(app)
    room = room_within(config, max_disk)
    endpoint = parse_endpoint("--metrics", metrics) if metrics is not None else None
    configure()
    directory = open_data_directory(
        data,
        config.cluster_id,
        replica,
        log_map_bytes=room.log,
        state_map_bytes=room.state,
    )
    try:
        reason = uvloop.run(serve(config, replica, signer, directory, machine, wrapper, endpoint))
    except OSError as error:
        raise CliError(_cannot_listen(config.replicas[replica], metrics, error)) from None
    finally:
        directory.close()
    if reason is not None:
        raise CliError(f"replica {replica} stopped: {reason}")


def application(name: str | None) -> StateMachine:
    """An instance of the application `module:Class`. Raises ApplicationNotFound, CliError."""
    if name is not None and not all(name.partition(":")):
        raise CliError(f"--app wants MODULE:CLASS, for instance ledger:Ledger, not {name!r}")
    sys.path.insert(0, str(Path.cwd()))  # an application of one's own lies where one stands
    try:
        return load_application(name or DEFAULT_APPLICATION)
    except ApplicationNotFound:
        raise
    except Exception as error:  # whatever importing or constructing somebody's code may raise
        raise CliError(
            f"the application {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from None


def faulty_wrapper(config: ClusterConfig, modes: str | None, *, dormant: bool = False) -> Wrapper:
    """The wrapper for `--faulty`; only in a cluster that was made for it."""
    if modes is None:
        return Wrapper()
    if not config.lab:
        raise CliError("faulty modes run only in a cluster made with `pbft keygen --lab`")
    check_modes(modes)
    return FaultyWrapper(modes, dormant)


def _cannot_listen(replica: ReplicaInfo, metrics: str | None, error: OSError) -> str:
    place = show_endpoint(replica.host, replica.port) + (f" and {metrics}" if metrics else "")
    reason = (error.strerror or str(error)).partition(" (")[0]  # libraries add the address
    return (
        f"replica {replica.id} cannot listen on {place}: {reason}; "
        "each address must be this machine's and free"
    )
