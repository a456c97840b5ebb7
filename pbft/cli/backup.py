"""`pbft backup`: the state of a running cluster in one certified file."""

import asyncio
from pathlib import Path
from typing import BinaryIO

import click

from client.backup import BackedUp, back_up
from client.errors import DeadlineExceeded
from pbft.cli.connection import client_option, connect, keys_option, timeout_option
from pbft.cli.errors import CliError
from pbft.cli.files import whole_file
from pbft.cli.kv_text import MAX_NUMBER
from pbft.cli.verify import show_time
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE


@click.command()
@keys_option
@client_option
@timeout_option(10.0)
@click.option("--min-seq", default=0, type=click.IntRange(0, MAX_NUMBER), help="Not from before.")
@click.option(
    "--out", "file", required=True, type=click.Path(path_type=Path), help="The file to write."
)
def backup(keys: Path, client_name: str, timeout: float, min_seq: int, file: Path) -> None:
    """Write the application's state at the newest stable checkpoint into a file.

    Every part of it is checked against the certificate of a quorum while it is written, and the
    file is there whole or not at all. It is not encrypted: anybody who can read it can read all
    that the cluster stores. --timeout is for how long nothing may go on.
    """
    if file.exists():
        raise CliError(f"{file} exists already and is never overwritten")
    try:
        with whole_file(file) as opened:
            made = asyncio.run(_back_up(keys, client_name, timeout, min_seq, opened))
    except DeadlineExceeded as error:
        raise CliError(f"{error}: see `pbft status` for who answers") from None
    summary = made.summary
    click.echo(
        f"{file}: {made.entries} entries, state after {summary.seq}, {show_time(summary.time)}, "
        f"root {summary.application_root.hex()[:16]}"
    )


async def _back_up(
    keys: Path, client_name: str, patience: float, min_seq: int, file: BinaryIO
) -> BackedUp:
    config = load_cluster(keys / CLUSTER_FILE)
    async with connect(keys, client_name, patience) as client:
        return await back_up(client, config, file, deadline=patience, min_seq=min_seq)
