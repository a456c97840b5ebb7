"""`pbft status` of a replica that fetches a state, and of one that talks nonsense about it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from client.client import Client
from pbft.cli.main import main

REPORT = {
    "view": 0,
    "primary": 0,
    "active": True,
    "voting": True,
    "amnesiac": False,
    "last_executed": 0,
    "stable_checkpoint": 128,
    "low_watermark": 128,
    "high_watermark": 384,
    "state_digest": "ab" * 32,
    "transfer": None,
}
TRANSFER = {
    "target": 64,
    "moves": 1,
    "bytes": 12_345_678,
    "buckets": 900,
    "nodes_wanted": 70,
    "sources": [0, 2],
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    made = CliRunner().invoke(main, ["keygen", "--out", str(tmp_path / "keys")])
    assert made.exit_code == 0, made.output
    return tmp_path / "keys"


def status(monkeypatch: pytest.MonkeyPatch, keys: Path, transfer: object, *options: str) -> str:
    """What the command prints where replica 3 says this of its transfer."""

    async def answer(_client: Client, replica: int, **_: Any) -> dict[str, Any]:
        return REPORT | ({"transfer": transfer} if replica == 3 else {})

    monkeypatch.setattr(Client, "status", answer)
    result = CliRunner().invoke(main, ["status", "--keys", str(keys), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_shows_how_far_a_state_transfer_is(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    shown = status(monkeypatch, keys, TRANSFER)
    assert (
        "replica 3 fetches the state after 64: 12.3 MB in 900 buckets so far, "
        "at least 70 tree nodes to go, from 0, 2"
    ) in shown
    assert shown.count("fetches") == 1
    told = json.loads(status(monkeypatch, keys, TRANSFER, "--json"))
    assert [report["transfer"] for report in told] == [None, None, None, TRANSFER]


def test_a_transfer_with_nobody_to_ask_says_so(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    shown = status(monkeypatch, keys, TRANSFER | {"sources": []})
    assert "to go, from nobody at the moment" in shown


@pytest.mark.parametrize("nonsense", [7, {"target": -1}, TRANSFER | {"sources": ["x"]}])
def test_a_replica_that_talks_nonsense_about_it_has_no_valid_report(
    monkeypatch: pytest.MonkeyPatch, keys: Path, nonsense: object
) -> None:
    shown = status(monkeypatch, keys, nonsense)
    assert shown.count("answers, but") == 1
    assert "fetches" not in shown
