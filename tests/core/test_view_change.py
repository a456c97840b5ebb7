"""Leaving a view: what is said, who joins, how long a NEW-VIEW may take (R28, R35-R37)."""

import pytest
from cores import SMALL, Cores, seen, sent, votes_in
from view_changes import count_own, leave, new_view, prepared_at, quiet, view_change

from pbft.core import events
from pbft.core.certificates import check_view_change
from pbft.core.output import Output
from pbft.messages import Checkpoint, NewView, Status, ViewChange

BACKUP, NEW_PRIMARY = 2, 1
MANY, LAST = 13, 12  # so many views may fail before the last replica leads one
VIEW_TIMEOUT, CAP = SMALL.view_timeout_ms, SMALL.view_timeout_cap_ms
RESEND_MS = 5 * SMALL.heartbeat_interval_ms


@pytest.fixture
def cores() -> Cores:
    return Cores()


def views(output: Output) -> list[int]:
    return [change.view for change in votes_in(output, ViewChange)]


def standing(cores: Cores, i: int) -> tuple[int, bool]:
    return cores.cores[i].views.view, cores.cores[i].views.active


# -- R28: what it says


@pytest.mark.rule("R28")
def test_a_view_change_carries_the_stable_checkpoint_and_all_that_is_prepared_above_it(
    cores: Cores,
) -> None:
    prepared_at(cores, BACKUP, 3)
    above = [prepared_at(cores, BACKUP, seq) for seq in (6, 7)]
    cores.step(BACKUP, cores.proposal(cores.content(cores.request(bundle=8)), 8))
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, 4, b"s" * 32))
    [change] = votes_in(leave(cores, BACKUP, 1, (0, 3)), ViewChange)
    stable = tuple(cores.envelope(i, Checkpoint(i, 4, b"s" * 32)) for i in (0, 1, 3))
    assert (change.stable_seq, change.stable_digest) == (4, b"s" * 32)
    assert change.stable_proof == stable
    found = check_view_change(cores.contexts[0].quorum, SMALL.window, change)
    assert [(p.seq, p.digest) for p in found] == [(6, above[0]), (7, above[1])]


@pytest.mark.rule("R28")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_an_own_view_change_passes_the_check_of_others(n: int) -> None:
    cores = Cores(n)
    prepared_at(cores, BACKUP, 1)
    [change] = votes_in(leave(cores, BACKUP, 1), ViewChange)
    assert len(check_view_change(cores.contexts[0].quorum, SMALL.window, change)) == 1


# -- R35: joining


@pytest.mark.rule("R35")
@pytest.mark.parametrize(("n", "w"), [(4, 2), (5, 2), (7, 3)])
def test_a_weak_quorum_that_leaves_takes_everybody_along(n: int, w: int) -> None:
    cores = Cores(n)
    others = [i for i in range(n) if i != BACKUP][:w]
    outputs = [cores.receive(BACKUP, view_change(cores, i, 1)) for i in others]
    assert [views(output) for output in outputs] == [[]] * (w - 1) + [[1]]


@pytest.mark.rule("R35")
def test_the_smallest_of_the_views_that_a_weak_quorum_wants_is_joined(cores: Cores) -> None:
    cores.receive(BACKUP, view_change(cores, 0, 9))
    assert views(cores.receive(BACKUP, view_change(cores, 3, 4))) == [4]


@pytest.mark.rule("R35")
@pytest.mark.rule("R6")
def test_one_replica_alone_moves_nobody_whatever_it_sends(cores: Cores) -> None:
    outputs = [cores.receive(BACKUP, view_change(cores, 3, view)) for view in (1, 1, 2, 7, 2**62)]
    assert not any(output.own for output in outputs)
    assert standing(cores, BACKUP) == (0, True)


@pytest.mark.rule("R35")
def test_a_replica_between_views_joins_a_weak_quorum_further_on(cores: Cores) -> None:
    leave(cores, BACKUP, 1, (0, 3))
    cores.receive(BACKUP, view_change(cores, 0, 6))
    assert views(cores.receive(BACKUP, view_change(cores, 3, 5))) == [5]


@pytest.mark.rule("R35")
def test_a_wild_view_number_does_not_pull_a_weak_quorum_along(cores: Cores) -> None:
    cores.receive(BACKUP, view_change(cores, 3, 2**63 - 1))
    assert views(cores.receive(BACKUP, view_change(cores, 1, 1))) == [1]


@pytest.mark.rule("R35")
def test_view_changes_for_views_that_are_over_count_for_nothing(cores: Cores) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 4, 0, 1, 3)))
    outputs = [
        cores.receive(BACKUP, view_change(cores, i, view)) for i in (0, 1) for view in (3, 4)
    ]
    assert not any(output.own for output in outputs)
    assert standing(cores, BACKUP) == (4, True)


# -- R36: how long a view may take to begin


@pytest.mark.rule("R36")
@pytest.mark.parametrize("n", [4, 5, 7])
def test_the_new_view_timer_starts_with_q_view_changes(n: int) -> None:
    cores = Cores(n)
    quorum = cores.contexts[0].quorum
    others = [i for i in range(n) if i != BACKUP]
    count_own(cores, BACKUP, leave(cores, BACKUP, 1, others[: quorum.w]))
    for i in others[quorum.w : quorum.q - 2]:
        cores.receive(BACKUP, view_change(cores, i, 1))
    if quorum.w + 1 < quorum.q:
        assert not views(cores.tick(BACKUP, 10 * VIEW_TIMEOUT)), "q-1 with its own"
        cores.receive(BACKUP, view_change(cores, others[quorum.q - 2], 1))
    assert not views(cores.tick(BACKUP, VIEW_TIMEOUT - 1))
    assert views(cores.tick(BACKUP, 1)) == [2]


@pytest.mark.rule("R36")
def test_the_new_view_timer_is_not_pushed_back_by_more_view_changes(cores: Cores) -> None:
    count_own(cores, BACKUP, leave(cores, BACKUP, 1, (0, 3)))
    cores.tick(BACKUP, VIEW_TIMEOUT - 1)
    cores.receive(BACKUP, view_change(cores, 1, 1))
    assert views(cores.tick(BACKUP, 1)) == [2]


def fail(cores: Cores, view: int) -> int:
    """All wait for `view` in vain; how long the last one has waited (ms) before it went on."""
    for i in range(LAST):
        cores.receive(LAST, view_change(cores, i, view))
    begun = cores.now.mono
    while True:
        wake_at = cores.outputs[LAST][-1].wake_at
        assert wake_at is not None
        output = cores.tick(LAST, max(1, (wake_at - cores.now.mono) // 1000))
        if standing(cores, LAST) != (view, False):
            assert views(output) == [view + 1]
            return (cores.now.mono - begun) // 1000


@pytest.mark.rule("R36")
def test_the_wait_doubles_with_each_view_that_fails_up_to_the_cap() -> None:
    cores = Cores(MANY)
    leave(cores, LAST, 1)
    waits = [fail(cores, view) for view in range(1, 11)]
    assert waits == [min(VIEW_TIMEOUT * 2**k, CAP) for k in range(10)]
    assert waits[-1] == waits[-2] == CAP


@pytest.mark.rule("R36")
@pytest.mark.parametrize("progress", [False, True])
def test_the_wait_shrinks_back_only_after_progress(progress: bool) -> None:
    cores = Cores(MANY)
    cores.ask(LAST, cores.request(client=2))  # it waits all the while
    leave(cores, LAST, 1)
    assert [fail(cores, view) for view in (1, 2)] == [VIEW_TIMEOUT, 2 * VIEW_TIMEOUT]
    quorum = cores.contexts[0].quorum
    cores.receive(LAST, new_view(cores, *quiet(cores, 3, *range(quorum.q))))
    if progress:
        content = cores.content(cores.request())
        votes = cores.commit_votes(content, 1, view=3)
        cores.step(LAST, events.CommittedBatchReceived(votes, content, 3))
        cores.step(LAST, cores.executed(1, content, False))
    leave(cores, LAST, 4)
    assert fail(cores, 4) == (VIEW_TIMEOUT if progress else 8 * VIEW_TIMEOUT)


@pytest.mark.rule("R36")
def test_a_view_that_had_nothing_to_do_has_not_failed() -> None:
    cores = Cores(MANY)
    cores.receive(LAST, new_view(cores, *quiet(cores, 1, *range(9))))
    leave(cores, LAST, 2)
    assert fail(cores, 2) == VIEW_TIMEOUT


@pytest.mark.rule("R36")
def test_going_on_to_a_later_view_stops_the_timer_of_the_one_before(cores: Cores) -> None:
    count_own(cores, BACKUP, leave(cores, BACKUP, 1, (0, 3)))
    cores.tick(BACKUP, VIEW_TIMEOUT - 1)
    leave(cores, BACKUP, 5, (0, 3))
    assert not views(cores.tick(BACKUP, 10 * VIEW_TIMEOUT)), "q are not there yet"


@pytest.mark.rule("R36")
def test_entering_a_view_stops_its_timer(cores: Cores) -> None:
    count_own(cores, BACKUP, leave(cores, BACKUP, 1, (0, 3)))
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    assert not views(cores.tick(BACKUP, VIEW_TIMEOUT))
    assert not sent(cores.tick(BACKUP, RESEND_MS), ViewChange)


# -- R37: said again until it is heard


@pytest.mark.rule("R37")
@pytest.mark.rule("R46")
@pytest.mark.parametrize("restarted", [False, True])
def test_a_view_change_is_sent_again_and_again_byte_by_byte(cores: Cores, restarted: bool) -> None:
    first = leave(cores, BACKUP, 1, (0, 3))
    [original] = [send.packet for send in first.sends]
    if restarted:
        prepared_elsewhere = cores.content(cores.request())
        votes = cores.commit_votes(prepared_elsewhere, 1)
        cores.step(BACKUP, events.CommittedBatchReceived(votes, prepared_elsewhere, 3))
        cores.restart(BACKUP)
        assert [s.packet for s in cores.tick(BACKUP).sends if s.packet == original]
    for _ in range(3):
        output = cores.tick(BACKUP, RESEND_MS)
        again = [send for send in output.sends if send.packet == original]
        assert [send.to for send in again] == [None]
        assert len(sent(output, ViewChange)) == 1


def status(i: int, view: int, active: bool) -> Status:
    return Status(i, view, active, 0, 0, ())


@pytest.mark.rule("R37")
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("where", [(0, True), (0, False), (1, False)])
def test_any_replica_passes_on_the_new_view_by_which_it_entered(
    cores: Cores, where: tuple[int, bool], restarted: bool
) -> None:
    body = new_view(cores, *quiet(cores, 1, 0, 1, 3))
    cores.receive(BACKUP, body)
    if restarted:
        cores.restart(BACKUP)
    cores.receive(BACKUP, status(3, *where))
    output = cores.receive(BACKUP, status(3, *where))
    assert (3, body) in sent(output, NewView)


@pytest.mark.rule("R37")
@pytest.mark.parametrize("where", [(1, True), (2, False), (2, True)])
def test_who_has_entered_or_gone_further_needs_no_new_view(
    cores: Cores, where: tuple[int, bool]
) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    cores.receive(BACKUP, status(3, *where))
    assert not sent(cores.receive(BACKUP, status(3, *where)), NewView)


# -- R40: a restart in the middle


@pytest.mark.rule("R40")
def test_a_restart_between_views_stays_between_them(cores: Cores) -> None:
    digest = prepared_at(cores, BACKUP, 1)
    [change] = votes_in(leave(cores, BACKUP, 3, (0, 1)), ViewChange)
    cores.restart(BACKUP)
    assert standing(cores, BACKUP) == (3, False)
    body = new_view(cores, change, *quiet(cores, 3, 0, 1))
    cores.receive(BACKUP, body)
    assert standing(cores, BACKUP) == (3, True)
    assert cores.cores[BACKUP].log.slot(1).digest == digest


@pytest.mark.rule("R40")
def test_a_restart_counts_the_own_view_change_again(cores: Cores) -> None:
    leave(cores, NEW_PRIMARY, 1, (0, 3))
    cores.restart(NEW_PRIMARY)
    cores.receive(NEW_PRIMARY, view_change(cores, 0, 1))
    output = cores.receive(NEW_PRIMARY, view_change(cores, 3, 1))
    [(_, opening)] = sent(output, NewView)
    assert isinstance(opening, NewView)
    assert len(opening.view_changes) == 3


def remembered(cores: Cores, i: int) -> list[Output]:
    """Core `i` learns that its disk has forgotten nothing."""
    others = [j for j in range(len(cores.cores)) if j != i]
    return [cores.receive(i, seen(j, i, 99, n)) for n in (0, 1) for j in others]


@pytest.mark.rule("R40")
def test_a_new_primary_that_restarts_before_it_may_vote_opens_its_view_afterwards(
    cores: Cores,
) -> None:
    """Its peers' VIEW-CHANGEs come while it waits for the answer to its INCARNATION (R41)."""
    leave(cores, NEW_PRIMARY, 1, (0, 3))
    cores.restart(NEW_PRIMARY)
    core = cores.cores[NEW_PRIMARY]
    core.gate.silence("unconfirmed")
    for i in (0, 3):
        assert not sent(cores.receive(NEW_PRIMARY, view_change(cores, i, 1)), NewView)
    outputs = remembered(cores, NEW_PRIMARY)
    assert [body.view for output in outputs for _, body in sent(output, NewView)] == [1]
    assert standing(cores, NEW_PRIMARY) == (1, True)


@pytest.mark.rule("R40")
@pytest.mark.rule("R46")
def test_who_may_not_vote_leaves_no_view_and_follows_the_others_once_it_may(cores: Cores) -> None:
    cores.restart(BACKUP)
    cores.cores[BACKUP].gate.silence("unconfirmed")
    assert not views(leave(cores, BACKUP, 1, (0, 3)))
    assert standing(cores, BACKUP) == (0, True)
    outputs = remembered(cores, BACKUP)
    assert [view for output in outputs for view in views(output)] == [1]
    assert standing(cores, BACKUP) == (1, False)
    cores.restart(BACKUP)
    cores.cores[BACKUP].gate.silence("unconfirmed")
    again = remembered(cores, BACKUP)
    assert not [view for output in again for view in views(output)], "one, and no second (R46)"
