import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from client.errors import NotConnected
from crypto.keys import KeyFileError
from pbft.cli import main as main_module
from pbft.cli.main import COMMANDS, main
from pbft.config import ConfigError
from pbft.storage.database import CorruptRecord


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> Result:
    """Run `pbft OPTIONS keygen`, with a keygen that raises `error`."""

    def fail() -> None:
        raise error

    command = click.Command("keygen", callback=fail)
    monkeypatch.setattr("pbft.cli.keygen.keygen", command)
    return CliRunner().invoke(main, [*options, "keygen"])


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("it does not add up"),
        KeyFileError("it does not add up"),
        NotConnected("it does not add up", sent=False),
        CorruptRecord("it does not add up"),
        OSError(98, "it does not add up"),
    ],
)
def test_an_expected_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for options in ((), ("--debug",)):
        result = failing(monkeypatch, error, *options)
        assert result.exit_code == 1
        assert result.stderr == "pbft: it does not add up\n"


def test_an_error_of_the_system_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(monkeypatch, PermissionError(13, "Permission denied", "data/lock"))
    assert result.stderr == "pbft: data/lock: Permission denied\n"


def test_a_bug_is_one_line_that_asks_for_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(monkeypatch, ZeroDivisionError("division\nby zero"))
    assert result.exit_code == 1
    assert result.stderr.startswith("pbft: unexpected ZeroDivisionError: division by zero; please")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("way", ["option", "environment"])
def test_debug_shows_the_traceback_of_a_bug(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "environment":
        monkeypatch.setenv("PBFT_DEBUG", "1")
    options = ("--debug",) if way == "option" else ()
    result = failing(monkeypatch, ZeroDivisionError("oops"), *options)
    assert isinstance(result.exception, ZeroDivisionError)


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(monkeypatch, KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.output == ""


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; from pbft.cli.main import main; main(['--help'], standalone_mode=False); "
        f"sys.exit(any(m in sys.modules for m in {[c.module for c in COMMANDS.values()]}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in run.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name} ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["keygen", "--nonsense"], ["kv", "put", "a"]])
def test_a_usage_error_has_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m pbft.cli.main --help | true"
    run = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_the_module_is_the_one_that_the_console_script_names() -> None:
    assert main_module.main is main
