"""The counter, over a plain state in memory."""

from typing import Any

import pytest

from examples.counter import MOST, Counter
from pbft import Refused


@pytest.fixture
def machine() -> Counter:
    return Counter()


def test_a_counter_begins_at_zero_and_adds_up(replica: Any) -> None:
    assert replica.query(b"read visits") == b"0"
    assert replica.apply(b"add visits 5") == b"5"
    assert replica.apply(b"add visits -7") == b"-2"
    assert replica.query(b"read visits") == b"-2"


def test_counters_do_not_touch_one_another(replica: Any) -> None:
    replica.apply(b"add one 1")
    replica.apply(b"add two 2")
    assert replica.query(b"read one") == b"1"
    assert replica.query(b"read two") == b"2"


@pytest.mark.parametrize(
    "operation",
    [
        b"",
        b"add",
        b"add visits",
        b"add visits x",
        b"add  visits 1",
        b"add visits 1\n",
        b"read visits",
    ],
)
def test_nonsense_is_refused_and_changes_nothing(replica: Any, operation: bytes) -> None:
    with pytest.raises(Refused, match="add NAME NUMBER"):
        replica.apply(operation)
    assert replica.state.entries == {}


def test_a_query_that_would_write_is_refused(replica: Any) -> None:
    with pytest.raises(Refused, match="read NAME"):
        replica.query(b"add visits 1")


def test_a_counter_never_runs_over(replica: Any) -> None:
    replica.state.put(b"visits", b"%d" % MOST)
    with pytest.raises(Refused, match="run over"):
        replica.apply(b"add visits 1")
    assert replica.query(b"read visits") == b"%d" % MOST
