"""`pbft soak` without its processes: the plan of trouble, and checks that bite."""

import io
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from pbft.cli.main import main
from pbft.cli.soak_checks import (
    CheckFailed,
    agree,
    check_evidence,
    check_history,
    check_ledger,
    last_reads,
    well,
)
from pbft.cli.soak_figures import Figures
from pbft.cli.soak_log import LogReader, note
from pbft.cli.soak_plan import EPOCH_SECONDS, Act, Kind, Step, plan
from pbft.cli.soak_trouble import Trouble
from pbft.simulation.history import Action, Operation

# --- the plan ----------------------------------------------------------------------------------


def test_a_seed_gives_the_same_trouble_again_and_another_seed_or_epoch_other_trouble() -> None:
    assert plan(7, 3, 4) == plan(7, 3, 4)
    assert plan(7, 3, 4) != plan(8, 3, 4)
    assert plan(7, 3, 4) != plan(7, 4, 4)


@pytest.mark.parametrize("replicas", [4, 7])
def test_every_kind_of_trouble_comes_in_order_and_often(replicas: int) -> None:
    epochs = [plan(1, epoch, replicas) for epoch in range(20)]
    kills: Counter[Kind] = Counter()
    for steps in epochs:
        assert [step.at for step in steps] == sorted(step.at for step in steps)
        assert all(0 < step.at <= EPOCH_SECONDS for step in steps)
        for step in steps:
            kills[step.kind] += len(step.replicas) if step.act is Act.KILL else 0
    assert {Kind.ONE, Kind.SEVERAL, Kind.ALL, Kind.AGAIN} <= {kind for kind in kills if kills[kind]}
    assert kills.total() / len(epochs) > EPOCH_SECONDS / 1.5  # one each 1.5 s


def test_a_stopped_replica_goes_on_after_at_most_30_seconds_and_only_f_stop_for_long() -> None:
    longest = 0.0
    for epoch in range(40):
        stops: dict[int, float] = {}
        long: list[tuple[float, float]] = []
        for step in plan(2, epoch, 4):
            if step.act is Act.STOP:
                stops.update(dict.fromkeys(step.replicas, step.at))
            elif step.act is Act.CONTINUE:
                lasted = step.at - min(stops[replica] for replica in step.replicas)
                longest = max(longest, lasted)
                if lasted > 2.0 and len(step.replicas) == 1:
                    long.append((step.at - lasted, step.at))
        long.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(long))
    assert 20 < longest <= 30


def test_disks_are_wiped_only_on_demand_and_one_at_a_time() -> None:
    def wipes(wipe: bool) -> list[Step]:
        steps = [step for epoch in range(40) for step in plan(3, epoch, 4, wipe=wipe)]
        return [step for step in steps if step.act is Act.WIPE]

    assert wipes(False) == []
    assert len(wipes(True)) > 10
    assert all(len(step.replicas) == 1 for step in wipes(True))


class FakeProcesses:
    """Keeps what was done to whom."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        self.done: list[tuple[str, tuple[int, ...]]] = []

    def start(self, replica: int) -> None:
        self.done.append(("start", (replica,)))
        self.pids[replica] = 1

    def kill(self, *replicas: int) -> None:
        self.done.append(("kill", replicas))
        for replica in replicas:
            del self.pids[replica]

    def freeze(self, replica: int) -> None:
        self.done.append(("stop", (replica,)))

    def thaw(self, replica: int) -> None:
        self.done.append(("continue", (replica,)))

    def __len__(self) -> int:
        return len(self.pids)


def test_steps_that_overlap_do_to_each_replica_only_what_makes_sense() -> None:
    processes, figures = FakeProcesses(), Figures()
    lab: Any = SimpleNamespace(processes=processes, replicas=range(4), log=io.BytesIO())
    trouble = Trouble(lab, figures)
    trouble.repair()
    processes.done.clear()
    for act, replicas in (
        (Act.START, (0,)),  # it runs
        (Act.STOP, (0, 1)),
        (Act.KILL, (0, 2)),
        (Act.KILL, (2, 3)),  # 2 is down
        (Act.STOP, (3,)),  # 3 is down
        (Act.CONTINUE, (0, 1)),  # 0 is down
    ):
        trouble.take(Step(1.0, act, replicas, Kind.SEVERAL))
    trouble.repair()
    assert processes.done == [
        ("stop", (0,)),
        ("stop", (1,)),
        ("kill", (0, 2)),
        ("kill", (3,)),
        ("continue", (1,)),
        ("start", (0,)),
        ("start", (2,)),
        ("start", (3,)),
    ]
    assert (figures.killed, figures.stops) == (3, 2)
    assert figures.kills == {"several at once": 3}
    assert b"soak-kill replicas=0,2 kind=several\n" in lab.log.getvalue()


# --- checks ------------------------------------------------------------------------------------


def put(call: int, value: bytes) -> Operation:
    return Operation(0, call, call + 5, b"k", Action.PUT, value)


def get(call: int, value: bytes | None) -> Operation:
    return Operation(1, call, call + 5, b"k", Action.GET, result=value)


def test_a_history_is_judged_from_the_state_at_its_beginning() -> None:
    history = [get(10, b"old"), put(20, b"new"), get(30, b"new")]
    check_history({b"k": b"old", b"other": None}, history)
    with pytest.raises(CheckFailed, match="not proven linearizable: not linearizable: key b'k'"):
        check_history({b"k": b"lost"}, history)


def test_an_acknowledged_write_that_a_later_read_misses_has_failed() -> None:
    with pytest.raises(CheckFailed, match="get, which returned b'old'"):
        check_history({b"k": b"old"}, [put(10, b"new"), get(20, b"old")])


def test_an_undecided_history_has_failed() -> None:
    with pytest.raises(CheckFailed, match="undecided: key b'k': no answer within 1 steps"):
        check_history({}, [put(10, b"a"), get(20, b"a"), put(30, b"b"), get(40, b"b")], max_steps=1)


def test_an_epoch_begins_with_what_the_last_reads_found() -> None:
    history = [get(30, b"new"), get(10, b"old"), put(20, b"new")]
    assert last_reads(history) == {b"k": b"new"}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({b"a": b"1"}, "1 acknowledged write lost: b"),
        ({}, "2 acknowledged writes lost: a, b"),
        ({b"a": b"1", b"b": b"1"}, "1 acknowledged write changed: b"),
        ({b"a": b"1", b"b": b"2", b"c": b"3"}, "1 key that nobody wrote, or deleted: c"),
    ],
)
def test_the_ledger_holds_what_was_acknowledged_no_more_no_less(
    found: dict[bytes, bytes], sentence: str
) -> None:
    acknowledged = {b"a": b"1", b"b": b"2"}
    check_ledger(acknowledged, acknowledged)
    with pytest.raises(CheckFailed, match=f"^{sentence}$"):
        check_ledger(acknowledged, found)


def report(**fields: Any) -> dict[str, Any]:
    base = {"last_executed": 20, "stable_checkpoint": 16, "state_digest": "a", "own_digest": "a"}
    return {**base, "view": 2, "active": True, "voting": True, "counters": {}, **fields}


def test_a_cluster_is_well_when_all_may_vote_and_a_quorum_does_so_in_one_view() -> None:
    away, other = report(view=3, active=False), report(view=1)
    silent, amnesiac = report(voting=False), report(amnesiac=True)
    assert well(dict(enumerate([report()] * 4)), 4)
    assert well(dict(enumerate([report()] * 3 + [away])), 4)
    assert not well(dict(enumerate([report()] * 3)), 4)
    assert not well(dict(enumerate([report()] * 3 + [away])), 5)
    for rest in ([away, away], [other, away], [silent, report()], [amnesiac, report()]):
        assert not well(dict(enumerate([report()] * 2 + rest)), 4)


def test_replicas_agree_only_if_all_answer_and_have_computed_the_same() -> None:
    assert agree({0: report(), 1: report()}, 2)
    assert not agree({0: report()}, 2)
    assert not agree({0: report(), 1: report(last_executed=21)}, 2)
    assert not agree({0: report(), 1: report(own_digest="")}, 2)


def test_evidence_against_anybody_has_failed() -> None:
    check_evidence({0: report(), 1: report(counters={"evidence": 0})})
    with pytest.raises(CheckFailed, match="replica 1 has seen signed messages that contradict"):
        check_evidence({0: report(), 1: report(counters={"evidence": 1})})


def test_a_log_line_that_no_replica_may_write_has_failed(tmp_path: Path) -> None:
    path, events = tmp_path / "log", Counter[str]()
    with path.open("wb", buffering=0) as log:
        reader = LogReader(path, events)
        note(log, "kill", replicas="1")
        log.write(b"2026-01-02T03:04:05.500Z info replica-started replica=3 address=a:1\n")
        log.write(b"2026-01-02T03:04:06.000Z info view-entered replica=3 view=1\n2026-01-02T03:04")
        [(replica, when)] = reader.take()
        assert (replica, when % 60) == (3, 5.5)
        assert events == {"view-entered": 1}
        log.write(b":07.000Z error state-diverged replica=2 seq=16\n")
        with pytest.raises(CheckFailed, match="error state-diverged replica=2 seq=16"):
            reader.take()
        log.write(b"pbft: replica 1 stopped: no space\n")
        with pytest.raises(CheckFailed, match=r"^a replica says: replica 1 stopped: no space$"):
            reader.take()
        reader.close()


def test_pauses_are_told_apart_from_those_without_a_quorum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    figures = Figures()
    figures.quorum(True)
    figures.working()
    for moment, event in (
        (101.0, figures.done),
        (102.0, lambda: figures.quorum(False)),
        (109.0, lambda: figures.quorum(True)),
        (112.0, figures.done),
    ):
        now = moment
        event()
    assert figures.longest_pause == 11.0
    assert figures.longest_with_quorum == 3.0


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    result = CliRunner().invoke(main, ["soak", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == f"pbft: {tmp_path} is not empty: give --data a new folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_started(
    tmp_path: Path,
) -> None:
    options = ["--data", str(tmp_path / "data"), "--report", str(tmp_path / "no" / "report")]
    result = CliRunner().invoke(main, ["soak", *options])
    assert result.exit_code == 2
    assert "invalid value for '--report'" in result.stderr
    assert not (tmp_path / "data").exists()
