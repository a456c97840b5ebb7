"""The real disk under power loss: a recorded life of a replica, replayed with losses and tears.

A sample; `python -m tests.power_loss` tries them all (docs/testing.md).
"""

import struct
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from msgspec import structs

from tests.power_loss.campaign import Chosen, Life, apart, losses_seen, workplace
from tests.power_loss.disk_model import PAGE
from tests.power_loss.losses import FULL, SAMPLE, losses
from tests.power_loss.marks import Mark
from tests.power_loss.recording import Unrecordable, calls

OVERFLOW_PAGE = 0x04


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    """One life of a replica, recorded."""
    with workplace() as work:
        try:
            yield Life(work)
        except Unrecordable as reason:
            pytest.skip(str(reason))


def marks(life: Life) -> Iterator[Mark]:
    for call in calls(life.recording):
        if call.kind == "K":
            yield msgspec.msgpack.decode(call.payload, type=Mark)


def test_the_recorder_misses_nothing(life: Life) -> None:
    """The recording, replayed without any loss, gives the folder byte by byte."""
    recorded, actual = life.replayed()
    assert recorded == actual
    assert len(actual) > 8


def test_the_life_has_all_that_a_replica_does_to_its_disk(life: Life) -> None:
    seen: Counter[str] = Counter()
    for mark in marks(life):
        seen[f"{mark.what} {mark.database}"] += 1
        if mark.what == "begun":
            for table, key, value in mark.writes:
                seen[f"{'delete' if value is None else 'put'} {mark.database} {table}"] += 1
                seen[f"{key!r} {'gone' if value is None else 'set'}"] += 1
    assert seen["opened log"] == seen["opened state"] == 2
    for table in ("slots", "batches", "checkpoints"):
        assert seen[f"put log {table}"] > 15
        assert seen[f"delete log {table}"] > 15
    assert seen["b'transfer' set"] == seen["b'transfer' gone"] > 0, "no state transfer"
    assert seen["put log view"] > 2, "no view change"
    assert seen["done log"] > 150
    assert seen["done state"] > 15


def test_pages_are_used_again_and_large_values_have_pages_of_their_own(life: Life) -> None:
    again: Counter[int] = Counter()
    overflow = 0
    for call in calls(life.recording):
        if call.kind == "W" and len(call.payload) >= PAGE:
            again[call.number // PAGE] += 1
            overflow += struct.unpack_from("<H", call.payload, 10)[0] & OVERFLOW_PAGE
    assert overflow > 20
    assert sum(count > 3 for page, count in again.items() if page > 1) > 20


@pytest.mark.rule("R39")
@pytest.mark.rule("R40")
def test_after_a_power_cut_the_disk_holds_one_committed_state(life: Life) -> None:
    """All acknowledged is there, what was under way is whole or not at all, and it goes on."""
    report = apart(life.try_losses, SAMPLE, Chosen(first=16, every=11))
    assert report.failures == {}, report.examples
    assert report.images > 300
    assert len(report.found) == 3, "not all outcomes were met"


@pytest.mark.rule("R40")
def test_the_power_may_fail_again_during_the_next_start(life: Life) -> None:
    for moment, image in life.images(FULL, Chosen(first=2, every=200, offset=150)):
        report = apart(life.fail_twice, SAMPLE, moment, image)
        assert report.failures == {}, report.examples
        assert report.moments > 3


@pytest.mark.rule("R40")
def test_the_node_starts_where_its_disk_says(life: Life) -> None:
    started = [
        life.start_node(moment, image)
        for moment, image in life.images(FULL, Chosen(every=300, offset=7))
    ]
    assert len(started) > 1


def test_a_disk_that_ignores_syncs_is_noticed(life: Life) -> None:
    report = apart(life.try_without_syncs, SAMPLE, Chosen(every=90, offset=89))
    assert losses_seen(report), report


def test_a_database_that_does_not_sync_is_noticed(life: Life) -> None:
    report = apart(life.try_careless, structs.replace(SAMPLE, most=60))
    assert any("acknowledged are lost" in failure for failure in report.failures)


def test_few_changes_are_lost_in_every_way_that_there_is(life: Life) -> None:
    pending = next(m.disk.pending for m in life.moments() if len(m.disk.pending) == 4)
    tried = {tuple(bool(mask) for mask in choice) for choice in losses(pending, FULL, "seed")}
    assert len(tried) == 2**4
