"""`pbft restore`: data directories of a new cluster from a backup of another one."""

import os
import shutil
from itertools import islice
from pathlib import Path

import click

from pbft.backups import BackupReader
from pbft.cli.errors import CliError
from pbft.cli.options import folder_option, keys_option
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE
from pbft.messages import StateSummary
from pbft.node.service import data_path
from pbft.proofs import InvalidProof
from pbft.storage.data_directory import open_data_directory
from pbft.storage.directory_lock import sync_directory
from pbft.storage.state_store import StateStore
from pbft.storage.tree_node import EMPTY_DIGEST

BUCKETS_AT_ONCE = 256


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--cluster",
    required=True,
    type=click.Path(path_type=Path),
    help="The cluster.toml of the cluster that the backup was made of.",
)
@keys_option
@folder_option("--data", "Where `pbft cluster`, or with --replica `pbft node`, has its data.")
@click.option("--replica", type=click.IntRange(min=0), help="This one alone, into --data itself.")
def restore(file: Path, cluster: Path, keys: Path, data: Path, replica: int | None) -> None:
    """Give a new cluster the application's state of an old one, from FILE made by `pbft backup`.

    --keys is the folder of the new cluster, made by `pbft keygen` and not started yet. The state is
    checked against the certificate in FILE and becomes where the new cluster begins: a new history
    from sequence number 0 on, in which no session of the old one is known. All replicas must be
    restored from the same file.
    """
    old, new = load_cluster(cluster), load_cluster(keys / CLUSTER_FILE)
    if old.cluster_id == new.cluster_id:
        raise CliError(
            "a cluster cannot go back to a backup of its own, since its replicas would forget "
            "what they have said: make a new one with `pbft keygen`, and restore into that"
        )
    if replica is not None and replica >= len(new.replicas):
        raise CliError(f"there is no replica {replica} in {keys / CLUSTER_FILE}")
    targets = {info.id: data_path(data, info.id) for info in new.replicas}
    for number, path in (targets if replica is None else {replica: data}).items():
        root = restore_replica(file, old, new, number, path)
        click.echo(f"{path}: replica {number}, root {root.hex()[:16]}")


def restore_replica(
    file: Path, old: ClusterConfig, new: ClusterConfig, replica: int, path: Path
) -> bytes:
    """Make the data directory `path`, whole or not at all; the root of what is in it now.

    Raises CliError, StorageFailure, OSError.
    """
    if path.exists():
        raise CliError(f"{path} exists already and is never overwritten")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        root = _fill(file, old, new, replica, partial)
        partial.rename(path)
    except InvalidProof as error:
        raise CliError(f"{file} cannot be restored: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_directory(path.parent)
    return root


def _fill(file: Path, old: ClusterConfig, new: ClusterConfig, replica: int, path: Path) -> bytes:
    """What every replica of the new cluster agrees on: this map, no sessions, sequence number 0."""
    with file.open("rb") as opened:
        reader = BackupReader(opened, old)
        root = reader.header.summary.application_root
        start = StateSummary(0, reader.header.summary.time, root, EMPTY_DIGEST)
        directory = open_data_directory(path, new.cluster_id, replica)
        try:
            store = StateStore(directory.state)
            store.begin_transfer(start)
            buckets = reader.buckets()
            while some := tuple(islice(buckets, BUCKETS_AT_ONCE)):
                store.install(*some)
            if not store.finish_transfer():
                raise InvalidProof("what was restored is not the state that the certificate names")
        finally:
            directory.close()
    return root
