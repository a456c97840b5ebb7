import asyncio
from pathlib import Path

import pytest

from client.errors import Refused
from client.kv import KV
from pbft.apps.kv_codec import Put, PutResult, Range, RangeResult, decode_operation, encode
from pbft.cli.bench import PAUSE_S, READ_KEY, Load, Run, client_names, percentile
from pbft.cli.errors import CliError
from pbft.cli.keygen import Plan, generate
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, 0.0),
        ([3.0], 50, 3.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(i) for i in range(1, 101)], 99, 99.0),
        ([float(i) for i in range(1, 101)], 90, 90.0),
        ([1.0, 2.0, 9.0], 100, 9.0),
        ([1.0, 2.0, 9.0], 99, 9.0),
    ],
)
def test_percentiles_are_by_nearest_rank(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    generate(Plan(clients=3), tmp_path / "keys")
    return tmp_path / "keys"


def test_every_client_whose_key_is_there_takes_part(keys: Path) -> None:
    (keys / "client-1.pem").unlink()
    assert client_names(load_cluster(keys / CLUSTER_FILE), keys) == ("client-0", "client-2")


def test_without_any_clients_key_nothing_is_measured(keys: Path) -> None:
    for number in range(3):
        (keys / f"client-{number}.pem").unlink()
    with pytest.raises(CliError, match="there is no client's key in"):
        client_names(load_cluster(keys / CLUSTER_FILE), keys)


class Flaky:
    """A client that answers at once, but refuses every third operation."""

    def __init__(self) -> None:
        self.calls = 0

    async def submit(self, operation: bytes) -> bytes:
        assert isinstance(decode_operation(operation), Put)
        self.calls += 1
        if self.calls % 3 == 0:
            raise Refused("no")
        return encode(PutResult(1))

    async def query(self, operation: bytes, *, ordered: bool = False) -> bytes:
        assert decode_operation(operation) == Range(READ_KEY)
        assert not ordered
        self.calls += 1
        return encode(RangeResult(1))


def test_answers_are_counted_and_errors_apart_from_them() -> None:
    client = Flaky()
    outcome = asyncio.run(Run(Load(1, 1, 10, 0.2)).measure([KV(client)]))
    assert outcome.operations + outcome.errors["Refused"] == client.calls
    assert outcome.errors["Refused"] == client.calls // 3 > 0
    # It paused after each error, and nobody was answered meanwhile.
    assert outcome.longest_pause_ms >= 1000 * PAUSE_S


def test_fast_reads_are_measured_too() -> None:
    client = Flaky()
    outcome = asyncio.run(Run(Load(1, 1, 10, 0.05, reads=True)).measure([KV(client)]))
    assert outcome.errors == {}
    assert outcome.operations == client.calls > 0
