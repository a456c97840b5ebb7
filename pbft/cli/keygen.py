"""`pbft keygen`: fresh keys and the public configuration of a new cluster."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct

from crypto.keys import generate_seed, save_seed
from crypto.signing import Ed25519Signer
from pbft.cli.errors import CliError
from pbft.cli.options import folder_option
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.config_check import check, check_replica_count, largest_window
from pbft.config_file import save_cluster
from pbft.config_keys import CLUSTER_FILE, client_key_file, replica_key_file
from pbft.core.quorum import Quorum


class Plan(Struct, frozen=True, kw_only=True):
    """What to generate; replica i listens on `hosts[i]` (or the only host) at `base_port` + i."""

    replicas: int = 4
    clients: int = 2
    hosts: tuple[str, ...] = ("127.0.0.1",)
    base_port: int = 7000
    parameters: Parameters = Parameters()
    lab: bool = False


def generate(plan: Plan, out: Path) -> ClusterConfig:
    """Write cluster.toml and all private keys into `out`: all of them or nothing.

    Raises ConfigError for an impossible plan, CliError where a file exists already or cannot be
    written.
    """
    check_replica_count(plan.replicas)
    replica_seeds = [generate_seed() for _ in range(plan.replicas)]
    client_seeds = {f"client-{i}": generate_seed() for i in range(plan.clients)}
    config = _configure(plan, replica_seeds, client_seeds)
    check(config)
    with _all_or_nothing(out) as folder:
        for replica, seed in enumerate(replica_seeds):
            save_seed(replica_key_file(folder, replica), seed)
        for name, seed in client_seeds.items():
            save_seed(client_key_file(folder, name), seed)
        save_cluster(config, folder / CLUSTER_FILE)
    return config


def _configure(
    plan: Plan, replica_seeds: list[bytes], client_seeds: dict[str, bytes]
) -> ClusterConfig:
    return ClusterConfig(
        replicas=tuple(
            ReplicaInfo(i, host, plan.base_port + i, _public(seed))
            for i, (host, seed) in enumerate(zip(_hosts(plan), replica_seeds, strict=True))
        ),
        clients=tuple(ClientInfo(name, _public(seed)) for name, seed in client_seeds.items()),
        parameters=plan.parameters,
        lab=plan.lab,
    )


def _hosts(plan: Plan) -> tuple[str, ...]:
    if len(plan.hosts) == 1:
        return plan.hosts * plan.replicas
    if len(plan.hosts) != plan.replicas:
        raise CliError(
            f"give one --host for all replicas, or one for each: "
            f"{plan.replicas} replicas, {len(plan.hosts)} hosts"
        )
    return plan.hosts


def _public(seed: bytes) -> bytes:
    return Ed25519Signer(seed).public_key


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside `out`; what is put into it moves to `out` at the end, if nothing fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name or 'keys'}-", dir=out.parent))
    except OSError as error:
        raise CliError(_why_not_written(out.parent, error)) from None
    try:
        yield folder
        _publish(folder, out)
    finally:
        shutil.rmtree(folder)


def _publish(folder: Path, out: Path) -> None:
    """Link the files into `out`, cluster.toml last: links never replace what is there."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == CLUSTER_FILE)
    made: list[Path] = []
    is_new = not out.exists()
    try:
        out.mkdir(mode=0o755, exist_ok=True)
        for name in names:
            os.link(folder / name, out / name)
            made.append(out / name)
    except BaseException as error:
        for path in made:
            path.unlink()
        if is_new and out.is_dir():
            out.rmdir()
        if isinstance(error, OSError):
            raise CliError(_why_not_published(error, out)) from None
        raise


def _why_not_published(error: OSError, out: Path) -> str:
    if isinstance(error, FileExistsError):
        there = error.filename2 or error.filename
        return f"{there} exists already and is never overwritten: give another folder with --out"
    return _why_not_written(out, error)


def _why_not_written(folder: Path, error: OSError) -> str:
    reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
    return f"cannot write to {folder}: {reason}"


def fitting(replicas: int) -> Parameters:
    """The default parameters, with a window that is small enough for that many replicas."""
    usual = Parameters()
    window = min(usual.window, largest_window(replicas))
    interval = min(usual.checkpoint_interval, window // 2)
    return msgspec.structs.replace(usual, window=window, checkpoint_interval=interval)


def _parse_settings(
    _context: click.Context, _option: click.Parameter, settings: tuple[str, ...]
) -> dict[str, int]:
    values: dict[str, int] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in Parameters.__struct_fields__:
            raise click.BadParameter(f"there is no parameter {name!r}")
        if not value.isascii() or not value.isdigit() or len(value) > 15:
            raise click.BadParameter(f"{name} takes a whole number, not {value!r}")
        values[name] = int(value)
    return values


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(*names, show_default=True, **settings)


@click.command()
@_option("--replicas", default=4, help="How many replicas: 3f+1 tolerate f faulty ones.")
@_option("--clients", default=2, type=click.IntRange(1, 5000), help="How many clients.")
@_option("--host", "hosts", multiple=True, default=("127.0.0.1",), help="One, or one per replica.")
@_option("--base-port", default=7000, help="Replica i listens on this port + i.")
@_option(
    "--set",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_settings,
    help="A protocol parameter other than its default; NAME as in cluster.toml.",
)
@click.option("--lab", is_flag=True, help="A test cluster: faulty-node modes are allowed.")
@folder_option("--out", "The folder to write to.", "keys")
def keygen(out: Path, replicas: int, parameters: dict[str, int], **plan: Any) -> None:
    """Make the keys and cluster.toml of a new cluster.

    Writes cluster.toml, which is public and the same for everybody, and one private key per replica
    and client, each to be moved to its owner. Nothing is overwritten.
    """
    check_replica_count(replicas)
    chosen = msgspec.structs.replace(fitting(replicas), **parameters)
    config = generate(Plan(replicas=replicas, parameters=chosen, **plan), out)
    quorum = Quorum(len(config.replicas))
    click.echo(
        f"cluster {config.cluster_id.hex()[:16]}: "
        f"{quorum.n} replicas, of which {quorum.f} may be faulty"
    )
    click.echo(
        f"wrote {out / CLUSTER_FILE}, {len(config.replicas)} replica keys "
        f"and {len(config.clients)} client keys"
    )
