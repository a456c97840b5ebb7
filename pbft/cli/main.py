"""The command `pbft`: a group whose subcommands are imported only when they are invoked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import click

from pbft.cli.errors import explain, explain_usage, is_expected

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Lazy(NamedTuple):
    module: str
    function: str
    summary: str


COMMANDS = {
    "keygen": _Lazy("pbft.cli.keygen", "keygen", "Make the keys and cluster.toml of a cluster."),
    "node": _Lazy("pbft.cli.node", "node", "Run one replica in the foreground."),
    "cluster": _Lazy("pbft.cli.cluster", "cluster", "Run all replicas on this machine."),
    "kv": _Lazy("pbft.cli.kv", "kv", "Read and write the key-value store."),
    "verify": _Lazy("pbft.cli.verify", "verify", "Check a proof or a backup offline."),
    "backup": _Lazy("pbft.cli.backup", "backup", "Write the state into one certified file."),
    "restore": _Lazy("pbft.cli.restore", "restore", "Begin a new cluster from a backup."),
    "status": _Lazy("pbft.cli.status", "status", "Show how each replica is."),
    "inspect": _Lazy("pbft.cli.inspect", "inspect", "Look at the disk of a stopped replica."),
    "bench": _Lazy("pbft.cli.bench", "bench", "Measure throughput and latency."),
    "simulate": _Lazy("pbft.cli.simulate", "simulate", "Run simulated clusters from seeds."),
    "soak": _Lazy("pbft.cli.soak", "soak", "Kill replicas again and again, and check everything."),
    "demo": _Lazy("pbft.cli.demo", "demo", "Watch a cluster survive its faults."),
}


class LazyGroup(click.Group):
    """Imports a subcommand's module when it is asked for, and turns errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(entry.module), entry.function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Parse the options of `pbft` itself."""
        with one_sentence():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> object:
        with one_sentence():
            return guarded(lambda: super(LazyGroup, self).invoke(ctx), bool(ctx.params["debug"]))


@contextmanager
def one_sentence() -> Iterator[None]:
    """Shortens what click says of a command line; no arguments at all get the whole help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise explain_usage(error) from None


def guarded(run: Callable[[], object], debug: bool) -> object:
    """Call `run`; of its errors only click's own get out, and with `debug` unexpected ones."""
    try:
        return run()
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if debug and not is_expected(error):
            raise
        raise explain(error) from None


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pbft", prog_name="pbft")
@click.option("--debug", is_flag=True, envvar="PBFT_DEBUG", help="Show tracebacks of our own bugs.")
def main(debug: bool) -> None:
    """Byzantine fault tolerant replication with PBFT."""


if __name__ == "__main__":
    main()
