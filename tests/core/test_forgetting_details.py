"""Each condition of a recovery (R41) by itself: what must be so before a replica votes again."""

import pytest
from cores import SMALL, Cores, seen, sent, summary_of
from view_changes import new_view, view_change

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.records import AmnesiaRecord
from pbft.core.recoveries import Recoveries
from pbft.messages import Checkpoint, Incarnation, IncarnationSeen, NewView, Recovery

ME = 2
NONCE = 99
ABOVE = SMALL.window + SMALL.checkpoint_interval
PAUSE_MS = SMALL.recovery_interval_ms


@pytest.fixture
def cores() -> Cores:
    return Cores()


def ask(cores: Cores) -> None:
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")


def forget(cores: Cores, *reached: int) -> None:
    ask(cores)
    for known in (6, 7):
        for peer, seq in zip((0, 1, 3), reached, strict=False):
            cores.receive(ME, seen(peer, ME, NONCE, known, at=(0, seq)))


def goal(cores: Cores) -> AmnesiaRecord | None:
    return cores.cores[ME].amnesia.goal


def stable(cores: Cores, seq: int) -> None:
    for peer in (0, 1, 3):
        cores.receive(ME, Checkpoint(peer, seq, checkpoint_digest(summary_of(seq))))
    cores.states[ME] = seq
    cores.cores[ME].queue.jump(seq)
    cores.step(ME, events.Executed(seq, summary_of(seq), (), None))


def enter(cores: Cores, view: int) -> None:
    proven = (ABOVE, checkpoint_digest(summary_of(ABOVE)))
    changes = [view_change(cores, i, view, stable=proven) for i in (0, 1, 3)]
    cores.receive(ME, new_view(cores, *changes))
    cores.step(ME, events.TurnEnded())


@pytest.mark.rule("R41")
def test_too_few_answers_make_nobody_begin_without_a_goal() -> None:
    """Or a crash right after it would leave a disk that knows of no loss."""
    cores = Cores(7)
    ask(cores)
    for peer in (0, 1, 3):
        cores.receive(ME, seen(peer, ME, NONCE, 6))
    assert not cores.disks[ME]
    cores.receive(ME, seen(4, ME, NONCE, 6))
    assert {key for _, key in cores.disks[ME]} == {b"incarnations", b"amnesia"}


@pytest.mark.rule("R41")
def test_its_own_start_is_not_learned_from_others(cores: Cores) -> None:
    """Or a crash right after it would make it look as if the disk had known it."""
    ask(cores)
    began = cores.envelope(ME, Incarnation(ME, 6, 1, True))
    cores.receive(ME, seen(0, ME, NONCE, 6, starts=(began,)))
    assert not cores.disks[ME]


@pytest.mark.rule("R41")
def test_of_all_answers_the_lowest_make_the_goal(cores: Cores) -> None:
    forget(cores, 30, 20, 10)
    assert goal(cores) == AmnesiaRecord(20 + SMALL.window, 0)


@pytest.mark.rule("R41")
def test_a_liar_s_goal_can_be_said(cores: Cores) -> None:
    """Until the third peer answers and lowers it."""
    forget(cores, 2**63 - 1, 0)
    assert goal(cores) == AmnesiaRecord(2**63 - 1, 0)
    assert sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Recovery)
    cores.receive(ME, seen(3, ME, NONCE, 7, at=(0, 4)))
    assert goal(cores) == AmnesiaRecord(4 + SMALL.window, 0)


@pytest.mark.rule("R41")
def test_answers_after_a_restart_can_still_lower_the_goal(cores: Cores) -> None:
    forget(cores, 30, 30)
    ask(cores)
    for peer in (0, 1):
        cores.receive(ME, seen(peer, ME, NONCE, 7, at=(0, 10)))
    assert goal(cores) == AmnesiaRecord(10 + SMALL.window, 0)


@pytest.mark.rule("R24")
@pytest.mark.rule("R41")
def test_a_state_that_is_being_replaced_has_not_passed_the_goal(cores: Cores) -> None:
    forget(cores, 0, 0)
    stable(cores, ABOVE)
    cores.cores[ME].queue.paused = True
    enter(cores, 1)
    assert goal(cores)
    cores.cores[ME].queue.paused = False
    cores.step(ME, events.TurnEnded())
    assert not goal(cores)


@pytest.mark.rule("R27")
@pytest.mark.rule("R41")
def test_a_view_that_it_was_on_its_way_to_is_not_entered_and_not_opened(cores: Cores) -> None:
    """The image is of the time between a VIEW-CHANGE and the NEW-VIEW that it would have sent."""
    for peer in (0, 1):
        cores.receive(ME, view_change(cores, peer, ME))
    assert not cores.cores[ME].views.active
    forget(cores, 0, 0)
    outputs = [cores.receive(ME, view_change(cores, peer, ME)) for peer in (0, 1, 3)]
    assert not any(sent(output, NewView) for output in outputs)
    stable(cores, ABOVE)
    cores.step(ME, events.TurnEnded())
    assert goal(cores)


@pytest.mark.rule("R41")
def test_a_start_that_is_not_confirmed_ends_no_recovery_and_asks_for_no_help(
    cores: Cores,
) -> None:
    forget(cores, 0, 0)
    ask(cores)
    assert not sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Recovery)
    stable(cores, ABOVE)
    enter(cores, 1)
    assert goal(cores)
    for known in (7, 8):
        for peer in (0, 1):
            cores.receive(ME, seen(peer, ME, NONCE, known, at=(0, 0)))
    cores.step(ME, events.TurnEnded())
    assert not goal(cores)


@pytest.mark.rule("R41")
def test_one_that_has_recovered_asks_no_more_and_hears_no_more(cores: Cores) -> None:
    """Though one peer has never answered, and does so now."""
    forget(cores, 0, 0)
    stable(cores, ABOVE)
    enter(cores, 1)
    assert not sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)
    cores.receive(ME, seen(3, ME, NONCE, 7))
    assert not goal(cores)
    assert not cores.cores[ME].gate.silent


@pytest.mark.rule("R41")
def test_votes_for_a_state_that_is_on_the_disk_are_no_news(cores: Cores) -> None:
    cores.states[ME] = 8
    ask(cores)
    for peer in (0, 1):
        cores.receive(ME, seen(peer, ME, NONCE, 0, voted=(0, 8)))
    assert cores.cores[ME].incarnations.known(ME) == 1
    assert not goal(cores)


def answered(cores: Cores, about: int = ME) -> IncarnationSeen:
    [(_, body)] = sent(cores.receive(0, Incarnation(about, 1, 7, False)), IncarnationSeen)
    assert isinstance(body, IncarnationSeen)
    return body


@pytest.mark.rule("R41")
@pytest.mark.parametrize("how", ["executed", "stable", "vouched"])
def test_an_answer_counts_what_was_ever_executed_or_is_known_to_be(cores: Cores, how: str) -> None:
    """Also by one whose own state is being replaced: it has vouched for that checkpoint."""
    digest = checkpoint_digest(summary_of(4))
    if how == "executed":
        cores.states[0] = 4
        cores.restart(0)
    elif how == "stable":
        for peer in (1, 2, 3):
            cores.receive(0, Checkpoint(peer, 4, digest))
    else:
        cores.cores[0].queue.jump(4)
        cores.step(0, events.Executed(4, summary_of(4), (), None))
        cores.restart(0, complete=False)
    assert answered(cores).reached == 4


@pytest.mark.rule("R41")
def test_peers_remember_view_changes_and_proposals_too(cores: Cores) -> None:
    cores.step(0, cores.proposal(cores.content(cores.request()), 3, view=1))
    assert answered(cores, about=1).voted_seq == 3
    cores.receive(0, view_change(cores, 3, 7))
    assert answered(cores, about=3).voted_view == 7


# -- the goals of others


class Helping:
    """A replica at sequence number `reached` in some view, on a clock that the test moves."""

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self.recoveries = Recoveries(cores.contexts[0])

    def hears(self, replica: int, seq: int, view: int, now_in: int = 0) -> str | None:
        body = self.cores.sign(replica, Recovery(replica, 1, seq, view))
        return self.recoveries.refusal(body, 40, now_in, self.cores.now)

    def told(self, replica: int, seq: int, now_in: int = 0) -> str | None:
        body = self.cores.sign(replica, Recovery(replica, 1, seq, 0))
        return self.recoveries.on_passed_on(body, 40, now_in, self.cores.now)

    def passes_on(self, stable_seq: int = 0, now_in: int = 0) -> int:
        return len(list(self.recoveries.to_pass_on(stable_seq, now_in)))


@pytest.fixture
def helping(cores: Cores) -> Helping:
    return Helping(cores)


@pytest.mark.rule("R41")
def test_the_highest_goal_that_is_not_passed_counts(helping: Helping) -> None:
    helping.hears(2, 9, 0)
    helping.hears(3, 17, 0)
    assert [helping.recoveries.fill_up_to(seq) for seq in (0, 12, 17, 18)] == [20, 20, 20, 0]


@pytest.mark.rule("R41")
def test_a_goal_that_was_lowered_is_lower_but_no_newer(helping: Helping) -> None:
    helping.hears(3, 17, 5, now_in=5)
    helping.cores.pass_time(PAUSE_MS // 2)
    assert helping.hears(3, 9, 4, now_in=6) is None
    assert helping.recoveries.fill_up_to(0) == 12
    assert not helping.recoveries.blames(3, 5 + helping.cores.contexts[0].quorum.w)
    assert helping.hears(3, 9, 5, now_in=6) == "recovery-too-soon"
    helping.cores.pass_time(PAUSE_MS // 2)
    assert helping.hears(3, 17, 5, now_in=6) is None


@pytest.mark.rule("R41")
def test_each_goal_is_passed_on_in_each_view_until_it_is_passed(helping: Helping) -> None:
    helping.hears(3, 9, 0)
    assert [helping.passes_on(), helping.passes_on()] == [1, 0]
    assert helping.passes_on(now_in=1) == 1
    helping.cores.pass_time(PAUSE_MS)
    helping.hears(3, 17, 0)
    assert helping.passes_on(now_in=1) == 1
    helping.recoveries.pass_on_again()
    assert helping.passes_on(stable_seq=18) == 0


@pytest.mark.rule("R41")
def test_the_next_primary_has_its_own_word(helping: Helping) -> None:
    assert helping.told(3, 9) is None
    assert helping.told(3, 17) == "recovery-too-soon"
    assert helping.told(3, 17, now_in=1) is None
    assert helping.recoveries.accept_up_to(0) == 20
    assert helping.recoveries.fill_up_to(0) == 0, "it proposes nothing for it itself"
