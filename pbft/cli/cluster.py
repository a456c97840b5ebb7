"""`pbft cluster`: all replicas of a cluster on this machine."""

from pathlib import Path

import click

from pbft.cli.node import faulty_wrapper
from pbft.cli.processes import ReplicaProcesses, parse_faulty
from pbft.config_file import load_cluster
from pbft.config_keys import load_replica_signer


@click.command(name="cluster")
@click.option("--keys", type=click.Path(path_type=Path), required=True, help="Where the keys are.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Where data goes.")
@click.option("--app", help="module:Class to run instead of the key-value store.")
@click.option("--faulty", multiple=True, metavar="REPLICA=MODE", help="E.g. 2=lie; lab only.")
def cluster(keys: Path, data: Path, app: str | None, faulty: tuple[str, ...]) -> None:
    """Run every replica of the cluster here until Ctrl-C. None is restarted by itself."""
    config = load_cluster(keys / "cluster.toml")
    modes = parse_faulty(faulty, len(config.replicas))
    for info in config.replicas:
        faulty_wrapper(config, modes.get(info.id))
        load_replica_signer(config, keys, info.id)
    processes = ReplicaProcesses(keys, data, app, None)
    try:
        for info in config.replicas:
            processes.start(info.id, modes.get(info.id))
        click.echo(f"{len(config.replicas)} replicas run; Ctrl-C stops them", err=True)
        while len(processes):
            replica, code = processes.wait_for_any()
            processes.forget(replica)
            click.echo(f"replica {replica} has ended with exit code {code}", err=True)
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        processes.stop_all()
