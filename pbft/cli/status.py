"""`pbft status`: how each replica is, in its own words."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta, Struct
from rich import box
from rich.console import Console
from rich.table import Table

from client.client import Client
from client.errors import DeadlineExceeded, NotConnected, RemoteError
from pbft.cli.connection import client_option, connect, keys_option, timeout_option
from pbft.cli.options import show_endpoint
from pbft.config import ReplicaInfo
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE
from pbft.messages import Number, ReplicaId

TITLES = (
    "replica",
    "address",
    "reachable",
    "view",
    "primary",
    "votes",
    "executed",
    "stable",
    "window",
    "state digest",
)
WIDTH = 145  # columns that the table may take, whatever the terminal has
DIGEST_SHOWN = 16  # hexadecimal digits of a state digest in the table

INVALID = "answers, but not with a valid report"


class Transfer(Struct, frozen=True):
    """How far a replica is that fetches a state from others."""

    target: Number
    bytes: Number
    buckets: Number
    nodes_wanted: Number
    sources: tuple[ReplicaId, ...]


class Report(Struct, frozen=True):
    """What a replica must say of itself; it may say more."""

    view: Number
    primary: ReplicaId
    active: bool
    voting: bool
    amnesiac: bool
    last_executed: Number
    stable_checkpoint: Number
    low_watermark: Number
    high_watermark: Number
    state_digest: Annotated[str, Meta(pattern="^[0-9a-f]{0,64}$")]
    transfer: Transfer | None = None


class Answer(Struct, frozen=True):
    """What came of asking one replica; `failure` is empty if it answered."""

    replica: ReplicaInfo
    raw: dict[str, Any]
    failure: str = ""


@click.command()
@keys_option
@client_option
@timeout_option(2.0)
@click.option("--json", "as_json", is_flag=True, help="Everything that they report, as JSON.")
@click.pass_context
def status(
    context: click.Context, keys: Path, client_name: str, timeout: float, as_json: bool
) -> None:
    """Ask every replica how it is.

    What a replica says counts as its own word only: a faulty one may say anything. Exit code 1 if
    none can be reached.
    """
    replicas = load_cluster(keys / CLUSTER_FILE).replicas
    client = connect(keys, client_name, timeout)
    answers = asyncio.run(_ask_all(client, replicas))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([_as_json(a) for a in answers])))
    else:
        Console(width=WIDTH).print(_table(answers))
        for line in filter(None, map(_transfer, answers)):
            click.echo(line)
    if all(answer.failure for answer in answers):
        context.exit(1)


async def _ask_all(client: Client, replicas: tuple[ReplicaInfo, ...]) -> list[Answer]:
    async with client:
        return await asyncio.gather(*(_ask(client, replica) for replica in replicas))


async def _ask(client: Client, replica: ReplicaInfo) -> Answer:
    try:
        return _checked(replica, await client.status(replica.id))
    except RemoteError:
        return Answer(replica, {}, INVALID)
    except NotConnected:
        return Answer(replica, {}, "no")
    except DeadlineExceeded:
        return Answer(replica, {}, "no answer")


def _checked(replica: ReplicaInfo, raw: dict[str, Any]) -> Answer:
    try:
        msgspec.convert(raw, Report)
    except msgspec.ValidationError:
        return Answer(replica, {}, INVALID)
    return Answer(replica, raw)


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        **answer.raw,
        "replica": answer.replica.id,
        "address": _address(answer.replica),
        "reachable": not answer.failure,
    }


def _address(replica: ReplicaInfo) -> str:
    return show_endpoint(replica.host, replica.port)


def _table(answers: list[Answer]) -> Table:
    table = Table(box=box.SIMPLE)
    for title in TITLES:
        table.add_column(title, no_wrap=True)
    for answer in answers:
        table.add_row(*_row(answer))
    return table


def _transfer(answer: Answer) -> str:
    """One line on the state that it fetches, if it does."""
    transfer = None if answer.failure else msgspec.convert(answer.raw, Report).transfer
    if transfer is None:
        return ""
    sources = ", ".join(map(str, transfer.sources)) or "nobody at the moment"
    return (
        f"replica {answer.replica.id} fetches the state after {transfer.target}: "
        f"{transfer.bytes / 1e6:.1f} MB in {transfer.buckets} buckets so far, at least "
        f"{transfer.nodes_wanted} tree nodes to go, from {sources}"
    )


def _row(answer: Answer) -> list[str]:
    start = [str(answer.replica.id), _address(answer.replica)]
    if answer.failure:
        return [*start, answer.failure]
    report = msgspec.convert(answer.raw, Report)
    return [
        *start,
        "yes",
        str(report.view) if report.active else f"{report.view} (changing)",
        str(report.primary),
        _votes(report),
        str(report.last_executed),
        str(report.stable_checkpoint),
        f"{report.low_watermark}..{report.high_watermark}",
        report.state_digest[:DIGEST_SHOWN],
    ]


def _votes(report: Report) -> str:
    if report.amnesiac:
        return "has forgotten"
    return "yes" if report.voting else "no"
