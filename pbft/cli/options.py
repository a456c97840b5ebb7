"""Options that several commands share, and the checks that click itself does not have."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pbft.cli.errors import CliError


def folder_option(
    name: str, text: str, default: str | None = None, *, required: bool = True
) -> Callable[[Any], Any]:
    """The option `name`, a folder; without a default it must be given, or may be None."""
    given: dict[str, Any] = {"required": required} if default is None else {"default": default}
    return click.option(
        name, metavar="FOLDER", callback=_folder, show_default=True, help=text, **given
    )


def _folder(_context: click.Context, _option: click.Parameter, value: str | None) -> Path | None:
    if value is None:
        return None
    if not value:  # as a path it would mean the current folder: not what an unset variable means
        raise click.BadParameter("the path is empty")
    return Path(value)


keys_option = folder_option("--keys", "The folder with cluster.toml and the keys.", "keys")
app_option: Callable[[Any], Any] = click.option(
    "--app", metavar="MODULE:CLASS", help="What to replicate instead of the key-value store."
)


_UNITS = {"M": 1024**2, "G": 1024**3, "T": 1024**4}


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    number, unit = parse_number(value[:-1]), _UNITS.get(value[-1:])
    if number is None or unit is None:
        raise click.BadParameter(f"it wants a size like 500M, 200G or 2T, not {value!r}")
    return number * unit


max_disk_option: Callable[[Any], Any] = click.option(
    "--max-disk",
    metavar="SIZE",
    callback=_size,
    help="What a replica's data may grow to, e.g. 200G; by default what the cluster allows.",
)


def seconds_option(name: str, text: str, default: float) -> Callable[[Any], Any]:
    """The option `name`, a duration of more than nothing and at most a day."""
    return click.option(
        name,
        default=default,
        show_default=True,
        type=click.FloatRange(0, 86_400, min_open=True),
        callback=_number,
        help=text,
    )


def _number(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if math.isnan(value):  # it passes every range
        raise click.BadParameter("it is not a number")
    return value


def parse_number(text: str) -> int | None:
    """A whole number of at most nine ASCII digits, or None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def show_endpoint(host: str, port: int) -> str:
    """As `parse_endpoint` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_endpoint(option: str, text: str) -> tuple[str, int]:
    """`HOST:PORT`, or `[HOST]:PORT` with an IPv6 address. Raises CliError."""
    host, _, digits = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    port = parse_number(digits)
    if not host or port is None or not 1 <= port <= 65535:
        raise CliError(f"{option} wants HOST:PORT, for instance 127.0.0.1:9100, not {text!r}")
    return host, port
