"""`pbft simulate crash-points`: what it runs, and what it says of runs that fail."""

import re
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from pbft.cli.main import main
from pbft.simulation.crash_points import CrashRun, Kill, Points, pairs_of, run_with, single_kills

MODULE = "pbft.cli.crash_points"


def crash_points(*options: str) -> Result:
    command = ["simulate", "crash-points", *options]
    return CliRunner().invoke(main, command, prog_name="pbft")


def test_one_kill_says_where_it_was_and_what_came_of_it() -> None:
    result = crash_points("--replica", "2", "--point", "117", "--again", "12", "--with", "3")
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert re.fullmatch(r"killed at '[a-zA-Z, ]+' and '[a-zA-Z, ]+': .*, trace [0-9a-f]{16}", first)
    assert last.startswith("one run: 1 runs, 0 failures, 3 kills, ")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some of the points."""

    def some(points: Points) -> list[Kill]:
        return single_kills(points)[::700]

    monkeypatch.setattr(f"{MODULE}.single_kills", some)


@pytest.mark.usefixtures("few")
def test_all_points_are_counted_by_kind_and_killed_at_one_by_one_then_in_pairs() -> None:
    result = crash_points("--pairs", "100")
    assert result.exit_code == 0, result.output
    points = run_with(None).points
    sizes = [len(kinds) for kinds in points]
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "point"
    table = {line[:24].strip(): [int(n) for n in line[24:].split()] for line in lines[1:-2]}
    assert table["all kinds"] == [*sizes, sum(sizes)]
    assert table["log commit, kept"][0] == points[0].count("log commit, kept")
    singles = single_kills(points)[::700]
    runs = [run_with(kill) for kill in singles]
    assert lines[-2].startswith(
        f"one kill: {len(singles)} runs, 0 failures, {len(singles)} kills, "
    )
    assert lines[-1].startswith(f"two kills: {len(pairs_of(runs, 100))} runs, 0 failures, ")


def failing(kill: Kill | None, seed: int) -> CrashRun:
    run = run_with(kill, seed)
    return replace(run, failures=("promise: none",)) if kill else run


def in_this_process(work: Callable[[Kill], CrashRun], kills: list[Kill]) -> object:
    return (work(kill) for kill in kills)


@pytest.mark.usefixtures("few")
def test_every_failing_run_prints_exactly_one_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{MODULE}.run_with", failing)
    monkeypatch.setattr(f"{MODULE}.run_all", in_this_process)
    result = crash_points("--seed", "1", "--pairs", "200")
    assert result.exit_code == 1
    commands = re.findall(
        r"^replay it with: pbft simulate crash-points (.*)$", result.stdout, re.MULTILINE
    )
    failures = re.findall(r"^FAILED, killed at '.*: promise: none$", result.stdout, re.MULTILINE)
    assert len(commands) == len(failures) > 4
    assert result.stderr == f"pbft: {len(commands)} of {len(commands)} runs failed\n"
    assert commands[0] == "--seed 1 --replica 0 --point 1"
    assert any("--again" in command for command in commands)
    again = crash_points(*commands[-1].split())
    assert again.exit_code == 1
    assert f"replay it with: pbft simulate crash-points {commands[-1]}\n" in again.stdout


def test_a_story_that_fails_without_a_kill_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = replace(run_with(None), failures=("liveness: none",))
    monkeypatch.setattr(f"{MODULE}.run_with", lambda *_: quiet)
    result = crash_points()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "pbft: it fails without any kill: liveness: none\n"


def test_ctrl_c_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_work: object, _kills: object) -> object:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(f"{MODULE}.run_all", interrupted)
    result = crash_points()
    assert result.exit_code == 130
    assert re.fullmatch(r"pbft: interrupted after 0 of \d+ runs\n", result.stderr)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--replica", "1"), "--replica and --point go together"),
        (("--point", "1"), "--replica and --point go together"),
        (("--again", "1"), "--again and --with go with --replica and --point"),
        (("--with", "1"), "--again and --with go with --replica and --point"),
        (("--replica", "1", "--point", "2", "--with", "1"), "--with names other replicas than"),
        (("--replica", "1", "--point", "2", "--pairs", "9"), "--pairs goes without --replica"),
        (("--replica", "4", "--point", "1"), "invalid value for '--replica': 4 is not in"),
        (("--replica", "0", "--point", "0"), "invalid value for '--point': 0 is not in"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told_in_one_sentence(
    options: tuple[str, ...], sentence: str
) -> None:
    result = crash_points(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.endswith("see `pbft simulate crash-points --help`\n")
    assert result.stderr.count("\n") == 1


def test_options_of_seeds_do_not_go_with_crash_points() -> None:
    for option in ("--seed", "--replicas"):
        command = ["simulate", option, "0" if option == "--seed" else "4", "crash-points"]
        result = CliRunner().invoke(main, command, prog_name="pbft")
        assert result.exit_code == 2
        assert "options of crash-points come after its name" in result.stderr
