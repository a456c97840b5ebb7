"""The house rules that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for room in ("crypto", "network", "pbft", "client") for path in (ROOT / room).rglob("*.py")
)
CORE = [path for path in SOURCES if path.is_relative_to(ROOT / "pbft" / "core")]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
IMPURE = {
    "asyncio",
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
}
IMPURE_CALLS = {"__import__", "eval", "exec", "input", "open", "print"}
RULES = [f"R{number}" for number in (*range(1, 39), *range(45, 48))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)
each_core_file = pytest.mark.parametrize("path", CORE, ids=name_of)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def called(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 50
    assert len(CORE) > 10


@each_source
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@each_source
def test_a_function_is_short(path: Path) -> None:
    long = [
        f"{node.name}: {lines} lines"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


@each_source
def test_a_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parse(path))


@each_source
def test_nothing_is_put_off(path: Path) -> None:
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", path.read_text()) == []


@each_source
def test_only_the_command_line_prints(path: Path) -> None:
    if not path.is_relative_to(ROOT / "pbft" / "cli"):
        assert "print" not in called(parse(path))


@each_core_file
def test_the_core_is_pure(path: Path) -> None:
    tree = parse(path)
    assert sorted(IMPURE & set(imported(tree))) == []
    assert sorted(IMPURE_CALLS & set(called(tree))) == []


def test_every_rule_is_shown_by_a_test() -> None:
    shown = {
        rule for path in (ROOT / "tests").rglob("test_*.py") for rule in rules_marked(parse(path))
    }
    assert [rule for rule in RULES if rule not in shown] == []


def rules_marked(tree: ast.Module) -> Iterator[str]:
    """The arguments of all `pytest.mark.rule(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rule":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))
