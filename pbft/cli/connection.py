"""What the commands that talk to a running cluster share: their options, and the way in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from client.client import Client
from pbft.cli import options
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE, load_client_signer

keys_option = options.keys_option
client_option: Callable[[Any], Any] = click.option(
    "--client",
    "client_name",
    default="client-0",
    show_default=True,
    help="Whose key to use: the file NAME.pem in that folder.",
)


def timeout_option(default: float) -> Callable[[Any], Any]:
    """--timeout, in seconds."""
    return options.seconds_option("--timeout", "Seconds to wait for an answer.", default)


def connect(keys: Path, client_name: str, deadline: float) -> Client:
    """A client with that key and a deadline in seconds, not yet open.

    Raises ConfigError, KeyFileError.
    """
    config = load_cluster(keys / CLUSTER_FILE)
    return Client(config, load_client_signer(config, keys, client_name), deadline=deadline)
