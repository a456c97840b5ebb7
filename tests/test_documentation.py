"""The documents say what the code says: links, counters, log lines, parameters, messages, rules."""

import ast
import json
import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pbft import messages
from pbft.cli.main import COMMANDS
from pbft.config import Parameters
from pbft.faults.modes import MODES
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.scenario import SECOND, scenario_of

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "keys" / "README.md"])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
RULES = (ROOT / "docs" / "rules.md").read_text()
NAMED = frozenset(re.findall(r"`([^`\n]+)`", OPERATIONS))
"""Everything that docs/operations.md names in code style."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- links -----------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


# --- counters, evidence and log lines ---------------------------------------------------------

PREFIXES = {
    "reject": "",
    "Rejected": "",
    "MalformedMessage": "malformed: ",
    "InvalidCertificate": "certificate: ",
    "_give_up": "state-transfer: ",
    "NodesRefused": "state-transfer: ",
    "accuse": "",
    "note": "",
    "log": "",
}
ROOMS = ("pbft/core", "pbft/node", "pbft/cli", "network")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
SOURCES.append(ROOT / "pbft" / "codec.py")
TIMERS = {
    "missing-batches",
    "missing-bodies",
    "new-view",
    "primary-silent",
    "state-transfer",
    "view-change-again",
}


def strings(node: ast.AST) -> Iterator[str]:
    """The string constants below `node`, but not the parts of f-strings."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from strings(child)


def called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def reasons(path: Path) -> Iterator[str]:
    """What this file counts, accuses of, or logs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and called(node) in PREFIXES:
            for argument in node.args:
                yield from (PREFIXES[called(node)] + text for text in strings(argument))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("counters"):
            yield from strings(node.slice)
        elif isinstance(node, ast.Return) and node.value and path.name == "relevance.py":
            yield from strings(node.value)


def names_like_a_reason(path: Path) -> Iterator[str]:
    """All words-with-hyphens, wherever they are used: reasons that travel through variables."""
    if path.is_relative_to(ROOT / "pbft" / "cli") or path.name == "invariants.py":
        return
    for text in strings(ast.parse(path.read_text())):
        if re.fullmatch(r"[a-z]+(-[a-z]+)+", text) and text not in TIMERS:
            yield text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_reason_and_log_line_is_explained(path: Path) -> None:
    said = {*reasons(path), *names_like_a_reason(path)}
    assert sorted(said - NAMED) == []


def test_there_are_reasons_to_explain() -> None:
    found = {reason for path in SOURCES for reason in reasons(path)}
    assert {"bad-signature", "duplicate", "evidence", "certificate: too few signers"} <= found
    assert len(found) > 60


def test_whatever_is_counted_in_simulation_is_explained() -> None:
    counted: set[str] = set()
    for seed in range(1, 7):
        cluster = SimulatedCluster(scenario_of(seed))
        cluster.start()
        cluster.world.run_until(3 * SECOND)
        counted |= {
            reason
            for machine in cluster.machines
            if machine.node
            for reason in machine.node.counters
        }
    assert len(counted) > 5
    explained = NAMED | {f"faulty-{mode}" for mode in MODES if "faulty-MODE" in NAMED}
    assert sorted(counted - explained) == []


# --- reports, metrics, parameters, commands ---------------------------------------------------


def test_every_field_of_a_report_is_explained() -> None:
    cluster = SimulatedCluster(scenario_of(1))
    cluster.start()
    node = cluster.machines[0].node
    assert node is not None
    assert sorted(set(json.loads(node.report())) - NAMED) == []
    assert {"address", "reachable"} <= NAMED


def test_every_metric_is_explained() -> None:
    source = (ROOT / "pbft" / "node" / "metrics.py").read_text()
    found = set(re.findall(r'"(pbft_\w+)"', source))
    assert len(found) > 3
    assert (
        sorted(name for name in found if name not in NAMED and f"{name}_total" not in NAMED) == []
    )


def test_every_parameter_is_explained_with_its_default() -> None:
    for name, default in msgspec.structs.asdict(Parameters()).items():
        assert f"| `{name}` | {default} | " in OPERATIONS, name


def test_every_command_and_faulty_mode_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"{name}" not in readme] == []
    assert [mode for mode in MODES if f"`{mode}`" not in readme] == []


def said_in(path: Path) -> Iterator[str]:
    """The strings of a file, with {} for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    yield from strings(ast.parse(path.read_text()))


def test_every_error_that_is_explained_exists() -> None:
    rooms = ("pbft", "client", "crypto", "network")
    said = "\n".join(
        text for room in rooms for path in (ROOT / room).rglob("*.py") for text in said_in(path)
    )
    table = OPERATIONS.partition("| what it says | what to do |")[2].partition("\n\n")[0]
    explained = [
        text
        for line in table.splitlines()
        for text in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]
    assert len(explained) > 20
    assert [text for text in explained if text not in said] == []


def test_every_part_of_the_core_is_in_the_architecture() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    parts = {path.stem for path in (ROOT / "pbft" / "core").glob("[a-z]*.py")}
    assert sorted(part for part in parts if f"`{part}`" not in architecture) == []


# --- messages ---------------------------------------------------------------------------------

TYPES = {
    messages.Number: "number",
    messages.ReplicaId: "replica id",
    messages.Digest: "32 bytes",
    messages.Signature: "64 bytes",
    messages.TreePath: "tree path",
    bytes: "bytes",
    bool: "bool",
}


def shown_type(kind: Any) -> str:
    """A field's type as docs/protocol.md writes it."""
    if kind in TYPES:
        return TYPES[kind]
    if typing.get_origin(kind) is typing.Annotated:
        inner, meta = typing.get_args(kind)
        if inner is int:
            most = meta.le if meta.le is not None else meta.lt - 1
            return f"{meta.ge}..{most}"
        return f"{meta.min_length or 0}..{meta.max_length} × {shown_items(inner)}"
    return str(kind.__name__)


def shown_items(kind: Any) -> str:
    (item, *_) = typing.get_args(kind)
    if typing.get_origin(item) is tuple:
        return " and ".join(map(shown_type, typing.get_args(item)))
    return shown_type(item)


def row(struct: Any) -> str:
    """One message as a row of a table in docs/protocol.md."""
    tag = struct.__struct_config__.tag
    hints = typing.get_type_hints(struct, include_extras=True)
    fields = (f"`{name}` {shown_type(hints[name])}" for name in struct.__struct_fields__)
    return f"| {'' if tag is None else tag} | {shown_name(struct)} | {', '.join(fields)} |"


def shown_name(struct: Any) -> str:
    if issubclass(struct, messages.Body):
        return re.sub(r"(?<!^)(?=[A-Z])", "-", struct.__name__).upper()
    return str(struct.__name__)


STRUCTS = [
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_fields__
    if value not in (messages.Verified,)
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_message_is_in_the_protocol_with_its_fields(struct: Any) -> None:
    assert row(struct) in PROTOCOL


# --- rules ------------------------------------------------------------------------------------


def rules_shown() -> dict[str, list[str]]:
    """Which test files are marked with which rule."""
    shown: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        marks = re.findall(r"pytest\.mark\.rule\(([^)]*)\)", path.read_text())
        for rule in sorted(set(re.findall(r'"(R\d+)"', " ".join(marks)))):
            shown.setdefault(rule, []).append(name_of(path))
    return shown


def with_tests(text: str) -> str:
    """docs/rules.md, each rule followed by links to the test files that show it."""
    shown = rules_shown()

    def one(rule: re.Match[str]) -> str:
        files = shown.get(rule[2], [])
        links = ",\n".join(f"[{file.removeprefix('tests/')}](../{file})" for file in files)
        return f"{rule[1]}\nTests: {links}.\n" if links else rule[1]

    return re.sub(
        r"(^\*\*(R\d+)\*\* (?:.+\n)+)(?:\nTests: (?:.+\n)+)?", one, text, flags=re.MULTILINE
    )


def test_every_rule_is_told_once() -> None:
    told = re.findall(r"^\*\*R(\d+)\*\* ", RULES, re.MULTILINE)
    assert sorted(map(int, told)) == list(range(1, 48))


def test_every_rule_names_the_tests_that_show_it() -> None:
    """`PBFT_UPDATE_GOLDEN=1 pytest tests/test_documentation.py` brings the links up to date."""
    expected = with_tests(RULES)
    if os.environ.get("PBFT_UPDATE_GOLDEN"):
        (ROOT / "docs" / "rules.md").write_text(expected)
        return
    assert expected == RULES


def test_a_rule_without_a_test_is_said_to_come_later() -> None:
    shown = rules_shown()
    for rule, text in re.findall(r"^\*\*(R\d+)\*\* ((?:.+\n)+)", RULES, re.MULTILINE):
        assert rule in shown or "*Later*" in text, rule
