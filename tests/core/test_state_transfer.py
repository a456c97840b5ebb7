"""Towards a certified checkpoint: what is believed, and never beside ordering (R23, R24)."""

import itertools

import msgspec
import pytest
from cores import SMALL, Cores, reasons, summary_of
from late import (
    LATE,
    SOURCES,
    TIMEOUT_MS,
    K,
    answer,
    asked,
    begun,
    certify,
    commit,
    installed,
    node,
    stuck,
)

from pbft.core import events
from pbft.core.output import (
    BeginTransfer,
    FinishTransfer,
    InstallNodes,
    Rejection,
)
from pbft.core.state_transfer import PATHS_PER_FETCH, ROOTS, SLOW_US
from pbft.messages import (
    Checkpoint,
    FetchState,
    StateNodes,
    StateSummary,
)


@pytest.fixture
def cores() -> Cores:
    return Cores()


# -- what is fetched


@pytest.mark.rule("R23")
@pytest.mark.parametrize(("voters", "fetched"), [((0,), False), ((0, 1), True), (SOURCES, True)])
def test_only_a_state_that_a_weak_quorum_vouches_for_is_fetched(
    cores: Cores, voters: tuple[int, ...], fetched: bool
) -> None:
    assert bool(asked(begun(cores, voters=voters))) is fetched


@pytest.mark.rule("R23")
@pytest.mark.parametrize("seq", [2 * K, 100 * K])
def test_voices_for_different_states_do_not_add_up(cores: Cores, seq: int) -> None:
    for voter in SOURCES:
        cores.receive(LATE, Checkpoint(voter, seq, bytes([voter]) * 32))
    assert not asked(stuck(cores))


@pytest.mark.rule("R23")
def test_the_highest_certified_state_is_fetched_from_those_who_signed_for_it(cores: Cores) -> None:
    certify(cores, K)
    certify(cores, 100 * K, (1, 2))
    questions = asked(stuck(cores))
    assert questions == [(1, FetchState(LATE, 100 * K, ROOTS))]


@pytest.mark.rule("R23")
def test_a_state_stays_certified_when_its_signers_have_gone_on(cores: Cores) -> None:
    certify(cores, K, (0, 1))
    certify(cores, 2 * K, (0,))
    certify(cores, 100 * K, (1,))
    assert asked(stuck(cores)) == [(0, FetchState(LATE, K, ROOTS))]


@pytest.mark.rule("R23")
def test_a_replica_that_is_not_behind_fetches_nothing(cores: Cores) -> None:
    certify(cores, K)
    cores.cores[LATE].queue.jump(K)
    assert not asked(stuck(cores))


# -- whom to believe


@pytest.mark.rule("R23")
@pytest.mark.parametrize(
    "summary",
    [
        msgspec.structs.replace(summary_of(2 * K), application_root=b"l" * 32),
        msgspec.structs.replace(summary_of(2 * K), time=1),
        summary_of(K),
        summary_of(3 * K),
    ],
)
def test_a_source_with_another_summary_than_the_certified_one_is_changed(
    cores: Cores, summary: StateSummary
) -> None:
    [(first, _)] = asked(begun(cores))
    assert first is not None
    output = cores.receive(LATE, StateNodes(first, summary, (node(ROOTS[0]),)))
    assert not output.transfer
    assert len(reasons(output)) == 1
    assert first not in [to for to, _ in asked(output)]
    assert asked(output)


@pytest.mark.rule("R23")
def test_a_source_whose_nodes_do_not_match_is_changed_and_not_asked_again(cores: Cores) -> None:
    [(first, question)] = asked(begun(cores))
    assert first is not None
    output = cores.receive(LATE, answer(first, *ROOTS))
    assert output.transfer == (
        BeginTransfer(summary_of(2 * K)),
        InstallNodes(answer(first, *ROOTS), first),
    )
    again = asked(cores.step(LATE, events.NodesRefused(first, "no match")))
    assert {path for _, body in again for path in body.paths} == set(question.paths)
    assert first not in [to for to, _ in again]


@pytest.mark.rule("R23")
def test_a_source_without_the_checkpoint_is_changed(cores: Cores) -> None:
    [(first, _)] = asked(begun(cores))
    assert first is not None
    output = cores.receive(LATE, StateNodes(first, summary_of(2 * K), ()))
    assert [to for to, _ in asked(output)] != [first]
    assert asked(output)


@pytest.mark.rule("R23")
def test_a_silent_source_is_changed_and_asked_again_only_when_all_were_tried(cores: Cores) -> None:
    tried = [to for to, _ in asked(begun(cores))]
    for _ in range(3):
        tried += [to for to, _ in asked(cores.tick(LATE, TIMEOUT_MS))]
    assert tried == [0, 1, 2, 0]


@pytest.mark.rule("R23")
def test_answers_that_were_not_asked_for_are_ignored(cores: Cores) -> None:
    assert not cores.receive(LATE, answer(0, *ROOTS)).transfer
    [(first, _)] = asked(begun(cores))
    other = next(source for source in SOURCES if source != first)
    assert not cores.receive(LATE, answer(other, *ROOTS)).transfer


# -- how it goes on


@pytest.mark.rule("R23")
def test_what_differs_is_fetched_from_all_sources_at_once(cores: Cores) -> None:
    begun(cores)
    wanted = tuple(bytes([0, nibble]) for nibble in range(16)) + tuple(
        bytes([0, 1, nibble]) for nibble in range(16)
    )
    questions = asked(installed(cores, 0, ROOTS, wanted))
    assert [to for to, _ in questions] == [0, 1, 2]
    assert [len(body.paths) for _, body in questions] == [11, 11, 10]
    assert {path for _, body in questions for path in body.paths} == set(wanted)


@pytest.mark.rule("R23")
def test_what_an_answer_leaves_out_is_asked_for_again(cores: Cores) -> None:
    begun(cores)
    questions = asked(installed(cores, 0, ROOTS[:1]))
    assert [path for _, body in questions for path in body.paths] == [ROOTS[1]]


@pytest.mark.rule("R23")
def test_the_state_is_taken_up_when_nothing_is_left_to_fetch(cores: Cores) -> None:
    begun(cores)
    output = installed(cores, 0, ROOTS)
    assert output.transfer == (FinishTransfer(),)
    failed = cores.step(LATE, events.TransferFailed())
    again = asked(failed)
    assert {path for _, body in again for path in body.paths} == set(ROOTS), "all over again"
    for source, body in again:
        assert source is not None
        output = installed(cores, source, body.paths)
    assert output.transfer == (FinishTransfer(),)
    done = cores.step(LATE, events.StateInstalled(summary_of(2 * K), (), None))
    assert cores.cores[LATE].queue.executed == 2 * K
    assert not asked(done)
    assert not asked(cores.tick(LATE, 10 * TIMEOUT_MS))


@pytest.mark.rule("R23")
def test_a_copy_of_an_answer_changes_nothing(cores: Cores) -> None:
    begun(cores)
    installed(cores, 0, ROOTS, (b"\x00\x01",))
    again = cores.step(LATE, events.NodesInstalled(1, ROOTS, ()))
    assert not again.transfer
    assert not again.sends


@pytest.mark.rule("R23")
def test_a_stalling_source_is_given_up_in_time_although_others_answer(cores: Cores) -> None:
    begun(cores, voters=(0, 1))
    wanted = tuple(bytes([0, n // 16, n % 16]) for n in range(2 * PATHS_PER_FETCH))
    questions = asked(installed(cores, 0, ROOTS, wanted))
    stalled = questions[1][1].paths
    for number in range(5):  # the other goes on answering, and is asked for more each time
        question = next(body for to, body in questions if to == 0)
        more = tuple(bytes([1, number, n // 16, n % 16]) for n in range(PATHS_PER_FETCH))
        cores.pass_time(TIMEOUT_MS // 5)
        questions = asked(installed(cores, 0, question.paths, more))
    output = cores.tick(LATE, 0)
    assert output.rejections == (Rejection("state-transfer: no answer in time", 1),)
    assert not asked(output), "the other one is busy"
    questions = asked(installed(cores, 0, more))
    assert questions == [(0, FetchState(LATE, 2 * K, stalled))]


@pytest.mark.rule("R23")
def test_what_one_source_is_slow_with_is_asked_of_an_idle_one_too(cores: Cores) -> None:
    begun(cores, voters=(0, 1))
    wanted = tuple(bytes([0, nibble]) for nibble in range(2))
    (_, quick), (_, slow) = asked(installed(cores, 0, ROOTS, wanted))
    assert not asked(installed(cores, 0, quick.paths))
    assert not asked(cores.tick(LATE, SLOW_US // 1000 - 1))
    assert asked(cores.tick(LATE, 1)) == [(0, FetchState(LATE, 2 * K, slow.paths))]
    assert installed(cores, 0, slow.paths).transfer == (FinishTransfer(),), "the slow one is idle"


@pytest.mark.rule("R23")
def test_an_answer_to_an_earlier_question_is_held_against_nobody(cores: Cores) -> None:
    begun(cores, voters=(0, 1))
    cores.tick(LATE, TIMEOUT_MS)  # 0 is late, and 1 is asked
    output = installed(cores, 1, ROOTS, (b"\x00\x01", b"\x00\x02"))
    assert [to for to, _ in asked(output)] == [1]
    cores.tick(LATE, TIMEOUT_MS)  # so is 1; both are asked again
    late = installed(cores, 1, (b"\x00\x09",))
    assert not late.rejections
    assert not asked(late)
    twice = installed(cores, 1, (b"\x00\x09",))
    assert reasons(twice) == ["state-transfer: nothing that was asked for"]


@pytest.mark.rule("R23")
def test_a_refusal_that_comes_late_changes_nothing(cores: Cores) -> None:
    begun(cores)
    asked_again = asked(cores.tick(LATE, TIMEOUT_MS))
    assert [to for to, _ in asked_again] == [1]
    late = cores.step(LATE, events.NodesRefused(0, "no match"))
    assert not asked(late)
    cores.step(LATE, events.StateInstalled(summary_of(2 * K), (), None))
    assert not cores.step(LATE, events.NodesRefused(1, "no match")).sends


# -- R24


@pytest.mark.rule("R24")
def test_a_replica_that_died_in_the_middle_executes_nothing_until_it_has_a_whole_state(
    cores: Cores,
) -> None:
    core = cores.restart(LATE, complete=False)
    assert core.queue.paused
    assert not commit(cores, 1).execute
    assert not core.may_read(0)
    certify(cores, 2 * K)
    for _ in range(4):
        output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
    assert [body.seq for _, body in asked(output)] == [2 * K]


@pytest.mark.rule("R23")
def test_a_source_that_was_silent_once_is_asked_again_after_a_pause_although_another_answers(
    cores: Cores,
) -> None:
    begun(cores, voters=(0, 1))
    wanted = tuple(bytes([0, n // 16, n % 16]) for n in range(2 * PATHS_PER_FETCH))
    questions = asked(installed(cores, 0, ROOTS, wanted))
    silent: list[int] = []
    for number in range(40):
        question = next(body for to, body in questions if to == 0)
        more = tuple(bytes([1, number, n // 16, n % 16]) for n in range(PATHS_PER_FETCH))
        cores.pass_time(TIMEOUT_MS // 4)
        questions = asked(cores.tick(LATE, 0)) + asked(installed(cores, 0, question.paths, more))
        silent += [number for to, _ in questions if to == 1]
    pauses = [later - early for early, later in itertools.pairwise(silent)]
    assert pauses
    assert pauses == sorted(pauses), "longer each time"
    assert min(pauses) >= 4


@pytest.mark.rule("R23")
def test_what_was_installed_counts_although_its_source_was_given_up_meanwhile(cores: Cores) -> None:
    """Otherwise it would be wanted for ever: nobody can send it again as something new."""
    begun(cores, voters=(0, 1))
    cores.receive(LATE, answer(0, *ROOTS))
    wanted = (b"\x00\x01", b"\x00\x02")
    questions = asked(cores.step(LATE, events.NodesInstalled(0, ROOTS, wanted)))
    [(late, path)] = [(to, body.paths) for to, body in questions if to == 0]
    assert late is not None
    cores.receive(LATE, answer(late, *path))
    cores.tick(LATE, TIMEOUT_MS)
    output = cores.step(LATE, events.NodesInstalled(late, path, ()))
    assert not output.rejections
    [rest] = [other for other in wanted if other not in path]
    assert installed(cores, 1, (rest,)).transfer == (FinishTransfer(),)
