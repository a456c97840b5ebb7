"""What a stale image or a liar could do to the recovery of those that have forgotten (R41)."""

import pytest
from cores import SMALL, Cores, reasons, seen, sent

from pbft.core import events
from pbft.core.certificates import InvalidCertificate, check_starts
from pbft.core.records import AmnesiaRecord
from pbft.core.relevance import reason_to_drop
from pbft.messages import Incarnation, IncarnationSeen, Proposal, Recovery, Suspect

ME = 2
NONCE = 99
LIAR = 3


@pytest.fixture
def cores() -> Cores:
    return Cores()


def ask(cores: Cores) -> None:
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")


def forget(cores: Cores, known: int, at: tuple[int, int]) -> None:
    ask(cores)
    for peer in (0, 1):
        cores.receive(ME, seen(peer, ME, NONCE, known, at=at))


@pytest.mark.rule("R41")
def test_an_image_from_an_earlier_recovery_has_a_goal_that_no_longer_counts(cores: Cores) -> None:
    """It has recovered and voted since the image was taken, far above what the image would pass."""
    forget(cores, 6, (0, 0))
    image = dict(cores.disks[ME])
    assert cores.cores[ME].amnesia.goal == AmnesiaRecord(SMALL.window, 0)
    cores.disks[ME] = image
    forget(cores, 9, (5, 400))
    assert cores.cores[ME].amnesia.goal == AmnesiaRecord(400 + SMALL.window, 5)
    cores.restart(ME)
    assert cores.cores[ME].amnesia.goal == AmnesiaRecord(400 + SMALL.window, 5)


@pytest.mark.rule("R41")
def test_a_new_start_has_a_number_above_every_one_that_was_shown(cores: Cores) -> None:
    """Also above those that few know: or an image of such a start could be put back unnoticed."""
    ask(cores)
    for peer, known in ((0, 3), (1, 2**40)):
        cores.receive(ME, seen(peer, ME, NONCE, known))
    assert cores.cores[ME].incarnations.known(ME) == 2**40 + 1


@pytest.mark.rule("R41")
@pytest.mark.rule("R44")
@pytest.mark.parametrize("highest", [0, 3, 5, 2**62])
def test_nobody_can_make_up_a_start_of_another(cores: Cores, highest: int) -> None:
    began = cores.envelope(ME, Incarnation(ME, 4, 7, True))
    other = cores.envelope(1, Incarnation(1, highest, 7, True))
    quorum = cores.contexts[0].quorum
    check_starts(quorum, seen(0, ME, NONCE, 4, starts=(began, other)))
    with pytest.raises(InvalidCertificate, match="own words"):
        check_starts(quorum, seen(0, ME, NONCE, highest, starts=(began, other)))
    with pytest.raises(InvalidCertificate, match="own words"):
        check_starts(quorum, seen(0, ME, NONCE, highest or 1, starts=(other,)))


@pytest.mark.rule("R41")
def test_starts_are_each_of_another_replica_and_have_begun(cores: Cores) -> None:
    began = [cores.envelope(i, Incarnation(i, 4, 7, True)) for i in range(4)]
    asked = cores.envelope(1, Incarnation(1, 4, 7, False))
    quorum = cores.contexts[0].quorum
    check_starts(quorum, seen(0, ME, NONCE, 4, starts=tuple(began)))
    for wrong in ((*began, began[0]), (began[2], began[0], began[0]), (began[2], asked)):
        with pytest.raises(InvalidCertificate):
            check_starts(quorum, seen(0, ME, NONCE, 4, starts=wrong))


# -- a liar that has forgotten nothing


def recovery(seq: int = SMALL.window, view: int = 0) -> Recovery:
    return Recovery(LIAR, 1, seq, view)


def mute_liar(cores: Cores) -> None:
    cores.cores[LIAR].gate.silence("forgotten")


def beat(cores: Cores) -> None:
    for i in (0, 1, 2):
        cores.restart(i)
    cores.run()


@pytest.mark.rule("R41")
@pytest.mark.parametrize("before", [None, recovery(0, 0)])
def test_a_liar_that_tells_only_the_primary_blocks_nothing(
    cores: Cores, before: Recovery | None
) -> None:
    """Or the backups would refuse the empty batches, and all that follows had to wait for them."""
    mute_liar(cores)
    if before:
        for backup in (1, 2):
            cores.receive(backup, before)
    cores.receive(0, recovery())
    cores.step(0, events.TurnEnded())
    cores.run()
    last = SMALL.window + SMALL.checkpoint_interval
    assert cores.states[:3] == [last] * 3
    cores.ask(0, cores.request())
    cores.step(0, events.TurnEnded())
    cores.run()
    assert cores.states[:3] == [last + 1] * 3
    assert {core.views.view for core in cores.cores} == {0}


@pytest.mark.rule("R41")
def test_a_primary_says_again_why_it_proposes_empty_batches(cores: Cores) -> None:
    """With each heartbeat: it may have been lost with a connection."""
    mute_liar(cores)
    beat(cores)
    cores.receive(0, recovery())
    for expected in (1, 0, 0):
        assert len(sent(cores.step(0, events.TurnEnded()), Recovery)) == expected
    cores.tick(0, SMALL.heartbeat_interval_ms)
    assert len(sent(cores.step(0, events.TurnEnded()), Recovery)) == 1


def pass_on(cores: Cores, body: Recovery, by: int) -> list[str]:
    return reasons(cores.step(1, events.Received(cores.sign(LIAR, body), by)))


@pytest.mark.rule("R25")
@pytest.mark.rule("R41")
def test_only_the_primary_passes_recoveries_on_and_only_once_in_a_while(cores: Cores) -> None:
    empty = cores.proposal(cores.content(), 1)
    assert pass_on(cores, recovery(), 2) == ["recovery-not-from-the-primary"]
    assert reasons(cores.step(1, empty)) == ["empty-batch"]
    assert pass_on(cores, recovery(SMALL.window + 1), 0) == ["recovery-out-of-reach"]
    assert not pass_on(cores, recovery(SMALL.window - 1), 0)
    assert not reasons(cores.step(1, empty))
    assert pass_on(cores, recovery(), 0) == ["recovery-too-soon"]
    cores.pass_time(SMALL.recovery_interval_ms // 2)
    assert not pass_on(cores, recovery(), 0)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("nothing_comes", [False, True])
def test_a_liar_that_tells_some_backups_costs_no_more_than_w_primaries(
    cores: Cores, nothing_comes: bool
) -> None:
    """With one of them it has enough voices to change the view."""
    mute_liar(cores)
    beat(cores)
    for _ in range(6 * SMALL.request_timeout_ms // 99):
        for told in (2, 1) if nothing_comes else (2,):
            cores.receive(told, recovery())
        for i in (0, 1, 2):
            cores.receive(i, Suspect(LIAR, cores.cores[i].views.view))
            cores.tick(i, 33)
        cores.run(lambda _from, _to, packet: nothing_comes and isinstance(packet, Proposal))
    assert cores.cores[1].views.view == cores.contexts[0].quorum.w
    assert bool(cores.states[1]) != nothing_comes


@pytest.mark.rule("R41")
def test_a_goal_that_is_still_named_gets_help_again_after_a_while(cores: Cores) -> None:
    """The primaries that were blamed may have been cut off."""
    core = cores.cores[1]
    cores.receive(1, recovery())
    w = cores.contexts[0].quorum.w
    assert core.recoveries.blames(LIAR, w - 1)
    assert not core.recoveries.blames(LIAR, w)
    core.views.view = core.ordering.view = w
    cores.receive(1, recovery())
    assert not core.recoveries.blames(LIAR, w)
    cores.pass_time(SMALL.recovery_interval_ms)
    cores.receive(1, recovery())
    assert core.recoveries.blames(LIAR, w)


@pytest.mark.rule("R25")
@pytest.mark.rule("R41")
def test_a_flood_of_starts_is_neither_written_nor_answered_for_long(cores: Cores) -> None:
    outputs = [cores.receive(0, Incarnation(LIAR, i, 7, True)) for i in range(1, 200)]
    assert 0 < sum(bool(output.persist) for output in outputs) < 50
    assert 0 < sum(bool(sent(output, IncarnationSeen)) for output in outputs) < 50
    assert reasons(outputs[-1]) == ["incarnation-over-quota"]
    cores.pass_time(100)
    assert sent(cores.receive(0, Incarnation(ME, 1, 7, False)), IncarnationSeen)
    assert sent(cores.receive(0, Incarnation(LIAR, 500, 7, True)), IncarnationSeen)


@pytest.mark.rule("R43")
def test_who_has_answered_is_not_listened_to_again(cores: Cores) -> None:
    """Its answer may carry a signature of each replica, and costs their verification."""
    ask(cores)
    core = cores.cores[ME]
    for number in (0, 1):
        for peer in (0, 1):
            assert reason_to_drop(core, seen(peer, ME, NONCE, number)) is None
            cores.receive(ME, seen(peer, ME, NONCE, number))
    assert reason_to_drop(core, seen(0, ME, NONCE, 1)) == "incarnation-not-asked-for"
    assert reason_to_drop(core, seen(3, ME, NONCE, 1)) is None
