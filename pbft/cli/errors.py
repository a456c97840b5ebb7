"""Errors as the user sees them: one sentence on stderr, `pbft: ...`, and an exit code."""

import sys
from importlib import import_module
from typing import IO, Any

import click

EXPECTED = {
    "pbft.config": ("ConfigError",),
    "crypto.keys": ("KeyFileError",),
    "client.errors": ("ClientError",),
    "pbft.storage.database": ("StorageFailure",),
    "pbft.storage.directory_lock": ("UnusableDirectory",),
    "pbft.node.service": ("ApplicationNotFound",),
    "pbft.faults.modes": ("UnknownMode",),
}
"""The exceptions, by module, whose text is a sentence meant for the user."""


class CliError(click.ClickException):
    """A command cannot do what it was asked to. Exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"pbft: {self.format_message()}", file=file or sys.stderr)


class CommandLineError(CliError):
    """The command line makes no sense; where to read what would. Exit code 2."""

    exit_code = 2


class Interrupted(CliError):
    """Ctrl-C or SIGTERM: how far it came."""

    exit_code = 130  # 128 + SIGINT, as shells have it


def explain_usage(error: click.UsageError) -> CommandLineError:
    """click's own complaint (several lines) as one sentence."""
    reason = _one_line(error.format_message()).removesuffix(".")
    command = error.ctx.command_path if error.ctx else "pbft"
    return CommandLineError(f"{reason[:1].lower()}{reason[1:]}: see `{command} --help`")


def explain(error: Exception) -> CliError:
    """What to tell the user about `error`, whatever it is."""
    if isinstance(error, OSError):
        return CliError(_about_system(error))
    if isinstance(error, _expected_types()):
        return CliError(_one_line(error))
    return CliError(
        f"unexpected {type(error).__name__}: {_one_line(error)}; "
        "please report this with the traceback that `pbft --debug ...` shows"
    )


def is_expected(error: Exception) -> bool:
    """Whether the text of `error` tells the user enough, so that no traceback is of use."""
    return isinstance(error, (OSError, *_expected_types()))


def _expected_types() -> tuple[type[Exception], ...]:
    """The types of EXPECTED whose modules are loaded: the others cannot have been raised."""
    return tuple(
        getattr(import_module(module), name)
        for module, names in EXPECTED.items()
        if module in sys.modules
        for name in names
    )


def _about_system(error: OSError) -> str:
    reason = error.strerror or _one_line(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
