"""`pbft cluster`: all replicas of a cluster on this machine."""

import asyncio
import signal
from pathlib import Path

import click

from pbft.cli.errors import CliError
from pbft.cli.node import application, faulty_wrapper
from pbft.cli.options import app_option, folder_option, keys_option, max_disk_option
from pbft.cli.processes import ReplicaProcesses, parse_faulty
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE, load_replica_signer
from pbft.node.space import room_within

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(name="cluster")
@keys_option
@folder_option("--data", "The folder in which each replica gets a data folder.")
@app_option
@max_disk_option
@click.option("--faulty", multiple=True, metavar="REPLICA=MODE", help="E.g. 2=lie; lab only.")
def cluster(
    keys: Path, data: Path, app: str | None, max_disk: int | None, faulty: tuple[str, ...]
) -> None:
    """Run every replica of the cluster here until Ctrl-C or SIGTERM.

    None is restarted by itself. Exit code 1 if all have ended without being asked to.
    """
    config = load_cluster(keys / CLUSTER_FILE)
    modes = parse_faulty(faulty, len(config.replicas))
    for info in config.replicas:
        faulty_wrapper(config, modes.get(info.id))
        load_replica_signer(config, keys, info.id)
    application(app)
    room_within(config, max_disk)
    processes = ReplicaProcesses(keys, data, app, None, max_disk=max_disk)
    try:
        asyncio.run(_run(processes, {info.id: modes.get(info.id) for info in config.replicas}))
    finally:
        processes.stop_all()


async def _run(processes: ReplicaProcesses, modes: dict[int, str | None]) -> None:
    """Start a replica per entry of `modes`, and wait until told to stop them."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGCHLD, *STOP_SIGNALS):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    for replica, mode in modes.items():
        processes.start(replica, mode)
    click.echo(f"{len(processes)} replicas run; Ctrl-C stops them", err=True)
    while len(processes):
        if await signals.get() in STOP_SIGNALS:
            click.echo("stopping", err=True)
            return
        for replica, code in processes.take_ended():
            end = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
            click.echo(f"replica {replica} has ended {end}", err=True)
    raise CliError("no replica runs any more: what each of them said last tells why")
