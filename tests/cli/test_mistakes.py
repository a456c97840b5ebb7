"""What a user may type wrong: one sentence that says what is wrong and what to do."""

import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pbft.cli.errors import CliError
from pbft.cli.main import COMMANDS, LazyGroup, main
from pbft.cli.options import parse_endpoint, parse_number, show_endpoint
from pbft.cli.processes import parse_faulty

NODE = ("node", "--replica", "0", "--data", "data")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the command stands, but for a cluster's `keys`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # `pbft node` adds the folder where one stands
    assert CliRunner().invoke(main, ["keygen", "--lab"]).exit_code == 0
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("frobnicate",), "no such command 'frobnicate': see `pbft --help`"),
        (("--frobnicate",), "no such option '--frobnicate': see `pbft --help`"),
        (("node",), "missing option '--replica': see `pbft node --help`"),
        (NODE[:3], "missing option '--data': see `pbft node --help`"),
        (("node", "--replica", "-1"), "invalid value for '--replica': -1 is not in the range"),
        (("node", "--replica", "x"), "invalid value for '--replica': 'x' is not a valid"),
        ((*NODE, "--data", ""), "invalid value for '--data': the path is empty: see"),
        ((*NODE, "--keys", ""), "invalid value for '--keys': the path is empty: see"),
        (("cluster",), "missing option '--data': see `pbft cluster --help`"),
        (("keygen", "--out", ""), "invalid value for '--out': the path is empty: see"),
        (("keygen", "extra"), "got unexpected extra argument (extra): see `pbft keygen --help`"),
        (("keygen", "--clients", "0"), "invalid value for '--clients': 0 is not in the range"),
        (("keygen", "--set", "colour=1"), "invalid value for '--set': there is no parameter"),
        (("kv", "put"), "missing argument 'KEY': see `pbft kv put --help`"),
        (("kv", "put", "a"), "missing argument 'VALUE': see `pbft kv put --help`"),
        (("kv", "put", "a", "b", "c"), "got unexpected extra argument (c): see `pbft kv put"),
        (("kv", "steal", "a"), "no such command 'steal': see `pbft kv --help`"),
        (("kv", "txn"), "nothing to do: give --if, --then or --else: see `pbft kv txn --help`"),
        (("kv", "get", "a", "--revision", "-1"), "invalid value for '--revision': -1 is not in"),
        (("kv", "range", "a", "--limit", "x"), "invalid value for '--limit': 'x' is not a"),
        (("kv", "--timeout", "0", "get", "a"), "invalid value for '--timeout': 0.0 is not in"),
        (("kv", "--timeout", "nan", "get", "a"), "invalid value for '--timeout': it is not a"),
        (("status", "extra"), "got unexpected extra argument (extra): see `pbft status --help`"),
        (("simulate",), "give either --seed N or --seeds COUNT: see `pbft simulate --help`"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_exit_code_2(
    folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in told(arguments, exit_code=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*NODE, "--replica", "4"), "there is no replica 4 in cluster.toml, only 0 to 3"),
        ((*NODE, "--keys", "nowhere"), "nowhere/cluster.toml: there is no such file (`pbft keygen"),
        ((*NODE, "--faulty", "nap"), "there is no faulty mode 'nap'"),
        ((*NODE, "--dormant"), "--dormant says when to misbehave: give --faulty as well"),
        ((*NODE, "--metrics", "9100"), "--metrics wants HOST:PORT, for instance 127.0.0.1:9100"),
        ((*NODE, "--app", "ledger"), "--app wants MODULE:CLASS, for instance ledger:Ledger"),
        ((*NODE, "--app", "broken:App"), "broken:App cannot be loaded: ZeroDivisionError: "),
        ((*NODE, "--data", "keys/cluster.toml"), "keys/cluster.toml: it is not a folder"),
        ((*NODE, "--data", "keys/cluster.toml/x"), "keys/cluster.toml/x: Not a directory"),
        (("keygen",), "exists already and is never overwritten: give another folder with --out"),
        (("keygen", "--out", "broken.py/x"), "cannot write to broken.py: it is not a folder"),
        (("kv", "--client", "bob", "get", "a"), "no client 'bob' in cluster.toml, which has clie"),
        (("kv", "--hex", "get", "xy"), "'xy' is not hexadecimal, as --hex wants it"),
        (("kv", "txn", "--if", "a = b"), "a condition reads 'KEY FIELD RELATION OPERAND', not"),
        (("kv", "txn", "--then", "put a"), "an operation reads 'put KEY VALUE', 'get KEY', "),
        (("kv", "--timeout", "0.1", "get", "a"), "0 of 4 replicas could be reached and 2 are nee"),
        (("bench", "--clients", "1000"), "so --clients 1000 would evict one another"),
    ],
)
def test_what_cannot_be_done_ends_with_exit_code_1(
    folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    assert sentence in told(arguments, exit_code=1)


def told(arguments: tuple[str, ...], exit_code: int) -> str:
    """The one line of a command that fails."""
    result = CliRunner().invoke(main, arguments, prog_name="pbft")
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("pbft: ")
    assert result.stderr.count("\n") == 1
    assert "unexpected " not in result.stderr.replace("unexpected extra argument", "")
    return result.stderr


def test_no_arguments_at_all_get_the_help() -> None:
    for arguments in ([], ["kv"]):
        result = CliRunner().invoke(main, arguments, prog_name="pbft")
        assert result.exit_code == 2
        assert result.output.startswith("Usage: pbft")
        assert "Commands:" in result.output


def test_every_option_says_what_it_is_for() -> None:
    assert isinstance(main, LazyGroup)
    context = click.Context(main)
    commands = [main.get_command(context, name) for name in COMMANDS]
    for command in commands:
        assert command is not None
        inner = list(command.commands.values()) if isinstance(command, click.Group) else []
        for each in (command, *inner):
            assert each.help
            options = [option for option in each.params if isinstance(option, click.Option)]
            assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("12", 12), ("", None), ("-1", None), ("²", None), ("1" * 10, None), (" 1", None)],
)
def test_a_number_is_written_in_plain_digits(text: str, number: int | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [("localhost:80", ("localhost", 80)), ("[::1]:9100", ("::1", 9100))],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint("--metrics", text) == endpoint
    assert show_endpoint(*endpoint) == text


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:0", "host:65536", "host:x"])
def test_another_endpoint_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="--metrics wants HOST:PORT"):
        parse_endpoint("--metrics", text)


def test_faulty_settings_name_replicas_and_modes() -> None:
    assert parse_faulty(("2=lie", "0=mute+silent"), 4) == {2: "lie", 0: "mute+silent"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("lie",), "wants REPLICA=MODE"),
        (("2=",), "wants REPLICA=MODE"),
        (("²=lie",), "wants REPLICA=MODE"),
        (("4=lie",), "there are only replicas 0 to 3"),
        (("2=lie", "2=mute"), "names replica 2 twice: for both modes give 2=lie[+]mute"),
    ],
)
def test_other_faulty_settings_are_refused(settings: tuple[str, ...], reason: str) -> None:
    with pytest.raises(CliError, match=reason):
        parse_faulty(settings, 4)
