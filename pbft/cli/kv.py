"""`pbft kv`: read and write the bundled key-value store."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
from msgspec import Struct

from client.errors import DeadlineExceeded
from client.kv import KV
from pbft.cli.connection import client_option, connect, keys_option, timeout_option
from pbft.cli.errors import CliError
from pbft.cli.files import whole_file
from pbft.cli.kv_text import (
    MAX_NUMBER,
    Text,
    parse_condition,
    parse_step,
    show_range,
    show_result,
)
from pbft.cli.token_file import TokenFile
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE
from pbft.proofs import encode_proof

R = TypeVar("R")


class _Target(Struct, frozen=True):
    """Which cluster, as whom, for how long, and how bytes are written."""

    keys: Path
    client_name: str
    timeout: float
    text: Text
    token: TokenFile | None = None

    def run(self, call: Callable[[KV], Awaitable[R]]) -> R:
        """The result of one call over a connection of its own."""
        result, seen = asyncio.run(self._run(call))
        if self.token is not None:
            self.token.store(seen)
        return result

    async def _run(self, call: Callable[[KV], Awaitable[R]]) -> tuple[R, int]:
        """The result, and the client's token after it."""
        try:
            async with connect(self.keys, self.client_name, self.timeout) as client:
                return await call(KV(client)), client.token
        except DeadlineExceeded as error:
            fate = " (it may still be carried out)" if error.sent else ""
            raise CliError(f"{error}{fate}: see `pbft status` for who answers") from None


@click.group()
@keys_option
@client_option
@timeout_option(10.0)
@click.option("--hex", "hexadecimal", is_flag=True, help="Keys and values are hexadecimal digits.")
@click.option(
    "--token",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep there how far the store was seen; `get` may lag behind others, never behind that.",
)
@click.pass_context
def kv(
    context: click.Context,
    keys: Path,
    client_name: str,
    timeout: float,
    hexadecimal: bool,
    token: Path | None,
) -> None:
    """Read and write the key-value store.

    Keys and values are UTF-8 text, or with --hex bytes as hexadecimal digits.
    """
    file = None
    if token is not None:
        file = TokenFile(token, load_cluster(keys / CLUSTER_FILE).cluster_id)
        file.load()  # a wrong one is noticed before anything is written
    context.obj = _Target(keys, client_name, timeout, Text(hexadecimal=hexadecimal), file)


@kv.command()
@click.argument("key")
@click.argument("value")
@click.pass_obj
def put(target: _Target, key: str, value: str) -> None:
    """Set KEY to VALUE and print the store's revision."""
    key_bytes, value_bytes = target.text.parse(key), target.text.parse(value)
    result = target.run(lambda store: store.put(key_bytes, value_bytes))
    click.echo(f"revision {result.revision}")


@kv.command()
@click.argument("key")
@click.option("--revision", default=0, type=click.IntRange(0, MAX_NUMBER), help="As of then.")
@click.option("--ordered", is_flag=True, help="Order the read instead of trying a fast one.")
@click.option(
    "--proof",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read from the newest stable checkpoint, and write its proof there: see `pbft verify`.",
)
@click.option(
    "--min-seq",
    type=click.IntRange(0, MAX_NUMBER),
    help="With --proof: wait for a checkpoint that is not older.",
)
@click.pass_obj
def get(
    target: _Target,
    key: str,
    revision: int,
    ordered: bool,
    proof: Path | None,
    min_seq: int | None,
) -> None:
    """Print the value of KEY and a newline. Exit code 1 if it is not there.

    With --proof that is the value at the newest stable checkpoint, which may lie some batches
    behind; that a key is not there is proved as well.
    """
    key_bytes = target.text.parse(key)
    if proof is not None:
        if revision or ordered:
            raise click.UsageError("--proof goes with neither --revision nor --ordered")
        _get_proved(target, key, proof, min_seq or 0)
        return
    if min_seq is not None:
        raise click.UsageError("--min-seq says how old a proof may be: give --proof as well")
    seen = target.token.load() if target.token else None
    result = target.run(
        lambda store: store.get(key_bytes, revision=revision, ordered=ordered, at_least=seen)
    )
    if result.value is None:
        raise CliError(f"there is no key {key!r}")
    click.echo(target.text.show(result.value))


def _get_proved(target: _Target, key: str, file: Path, min_seq: int) -> None:
    key_bytes = target.text.parse(key)
    proven = target.run(lambda store: store.get_verified(key_bytes, min_seq=min_seq))
    with whole_file(file) as opened:
        opened.write(encode_proof(proven.proof))
    if proven.value is None:
        raise CliError(f"there was no key {key!r} after {proven.seq}: {file} proves that")
    click.echo(target.text.show(proven.value))


@kv.command()
@click.argument("key")
@click.pass_obj
def delete(target: _Target, key: str) -> None:
    """Delete KEY and print the store's revision. Exit code 1 if it is not there."""
    key_bytes = target.text.parse(key)
    result = target.run(lambda store: store.delete(key_bytes))
    if not result.deleted:
        raise CliError(f"there is no key {key!r}")
    click.echo(f"revision {result.revision}")


@kv.command()
@click.argument("revision", required=False, type=click.IntRange(1, MAX_NUMBER))
@click.pass_obj
def compact(target: _Target, revision: int | None) -> None:
    """Forget all history before REVISION, by default the present one, and print which it was.

    The room that it took is free soon afterwards.
    """
    click.echo(f"revision {target.run(lambda store: _compact(store, revision))}")


async def _compact(store: KV, revision: int | None) -> int:
    if revision is None:
        revision = (await store.range(b"", limit=1, keys_only=True, ordered=True)).revision
    await store.compact(revision)
    return revision


@kv.command("range")
@click.argument("start", metavar="FROM")
@click.argument("end", metavar="[TO]", required=False)
@click.option("--limit", default=0, type=click.IntRange(0, MAX_NUMBER), help="At most so many.")
@click.option("--revision", default=0, type=click.IntRange(0, MAX_NUMBER), help="As of then.")
@click.option("--ordered", is_flag=True, help="Order the read instead of trying a fast one.")
@click.pass_obj
def range_(
    target: _Target, start: str, end: str | None, limit: int, revision: int, ordered: bool
) -> None:
    """Print the keys from FROM up to but without TO, each with a tab and its value.

    Without TO the range goes up to the last key; with FROM "" it begins at the first.
    """
    first = target.text.parse(start)
    last = target.text.parse(end) if end else None
    result = target.run(
        lambda store: store.range(first, last, limit=limit, revision=revision, ordered=ordered)
    )
    for line in show_range(result, target.text):
        click.echo(line)


@kv.command()
@click.option("--if", "conditions", multiple=True, metavar="CONDITION", help="All must hold.")
@click.option("--then", "success", multiple=True, metavar="OPERATION", help="If they do.")
@click.option("--else", "failure", multiple=True, metavar="OPERATION", help="If they do not.")
@click.pass_obj
def txn(
    target: _Target,
    conditions: tuple[str, ...],
    success: tuple[str, ...],
    failure: tuple[str, ...],
) -> None:
    """Compare, then write and read: all of it at once, or not at all.

    Each of the three options can be repeated.

    \b
    CONDITION  'KEY FIELD RELATION OPERAND'
               FIELD is value, version, created or modified: the latter two
               are revisions; of a missing key all numbers are 0.
               RELATION is =, !=, < or >.
    OPERATION  'put KEY VALUE', 'get KEY', 'delete KEY' or 'range FROM [TO]'

    Words are split as by a shell, so quotes keep spaces together. Prints "succeeded" if all
    conditions held, else "failed", then the outcome of each operation that was done.

    \b
    Create a key only if it is not there yet:
      pbft kv txn --if 'color version = 0' --then 'put color blue'
    Compare and swap, or see what is there:
      pbft kv txn --if 'color value = blue' --then 'put color "dark red"' \\
                  --else 'get color'
    """
    if not (conditions or success or failure):
        raise click.UsageError("nothing to do: give --if, --then or --else")
    text = target.text
    compares = tuple(parse_condition(condition, text) for condition in conditions)
    then = tuple(parse_step(step, text) for step in success)
    otherwise = tuple(parse_step(step, text) for step in failure)
    result = target.run(lambda store: store.txn(compares, then, otherwise))
    click.echo("succeeded" if result.succeeded else "failed")
    for each in result.results:
        for line in show_result(each, text):
            click.echo(line)
