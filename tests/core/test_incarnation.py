"""Each start is counted, and a disk that has forgotten is found out (R41)."""

import pytest
from cores import SMALL, Cores, sent, votes_in

from pbft.core import events
from pbft.messages import Incarnation, IncarnationSeen, Prepare

ME = 2
NONCE = 99


@pytest.fixture
def cores() -> Cores:
    cores = Cores()
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")
    return cores


def answers(cores: Cores, *previous: tuple[int, int]) -> list[str | None]:
    """Let peers answer (who, the highest start known before); what makes the replica halt."""
    return [cores.receive(ME, IncarnationSeen(i, ME, NONCE, known)).halt for i, known in previous]


def may_vote(cores: Cores) -> bool:
    content = cores.content(cores.request())
    return bool(votes_in(cores.step(ME, cores.proposal(content, 1)), Prepare))


@pytest.mark.rule("R41")
def test_a_start_is_counted_on_the_disk_before_it_is_told(cores: Cores) -> None:
    for number in (2, 3):
        cores.restart(ME)
        output = cores.outputs[ME][-1]
        assert sent(output, Incarnation) == [(None, Incarnation(ME, number, NONCE))]
        assert b"incarnations" in [write.key for write in output.persist]


@pytest.mark.rule("R41")
@pytest.mark.parametrize(("n", "answered"), [(4, 2), (5, 3), (7, 4)])
def test_a_replica_votes_once_a_quorum_with_itself_knows_of_no_later_start(
    n: int, answered: int
) -> None:
    cores = Cores(n)
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")
    peers = [i for i in range(n) if i != ME]
    answers(cores, *((i, 0) for i in peers[: answered - 1] * 2))
    assert not may_vote(cores)
    output = cores.receive(ME, IncarnationSeen(peers[answered - 1], ME, NONCE, 0))
    assert votes_in(output, Prepare), "what it had accepted in silence gets its vote now"


@pytest.mark.rule("R41")
def test_a_weak_quorum_that_remembers_later_starts_stops_it(cores: Cores) -> None:
    assert answers(cores, (0, 1)) == [None], "one may lie"
    [halt] = answers(cores, (3, 5))
    assert halt is not None
    assert "forgotten" in halt


@pytest.mark.rule("R41")
def test_one_liar_neither_stops_it_nor_keeps_it_silent(cores: Cores) -> None:
    assert answers(cores, (3, 2**62), (0, 0)) == [None] * 2
    assert not may_vote(cores), "the liar's answer is none of the q"
    assert votes_in(cores.receive(ME, IncarnationSeen(1, ME, NONCE, 0)), Prepare)


@pytest.mark.rule("R41")
def test_answers_about_another_start_or_another_replica_do_not_count(cores: Cores) -> None:
    for i in (0, 1, 3):
        cores.receive(ME, IncarnationSeen(i, ME, NONCE + 1, 0))
        cores.receive(ME, IncarnationSeen(i, 1, NONCE, 0))
    assert not may_vote(cores)


@pytest.mark.rule("R41")
def test_it_asks_until_it_is_answered(cores: Cores) -> None:
    for _ in range(3):
        assert sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)
    answers(cores, (0, 0), (1, 0))
    assert not sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)


def told(cores: Cores, number: int, nonce: int) -> int:
    """What replica 0 answers to a start of replica 3."""
    output = cores.receive(0, Incarnation(3, number, nonce))
    [(to, answer)] = sent(output, IncarnationSeen)
    assert to == 3
    assert isinstance(answer, IncarnationSeen)
    assert (answer.about, answer.nonce) == (3, nonce)
    return answer.previous


@pytest.mark.rule("R41")
@pytest.mark.parametrize("restarted", [False, True])
def test_peers_remember_the_highest_start_durably(cores: Cores, restarted: bool) -> None:
    assert told(cores, 4, 1) == 0
    assert told(cores, 4, 1) == 0, "the same start asks again"
    if restarted:
        cores.restart(0)
    assert told(cores, 5, 2) == 4
    assert told(cores, 5, 3) == 5, "another start with a number that is taken"
    assert told(cores, 1, 4) == 5, "an emptied disk"
    assert told(cores, 6, 5) == 5


@pytest.mark.rule("R41")
def test_a_confirmed_replica_is_not_stopped_by_late_answers(cores: Cores) -> None:
    answers(cores, (0, 0), (1, 0))
    assert answers(cores, (3, 9), (0, 9)) == [None, None]
    assert may_vote(cores)


@pytest.mark.rule("R41")
def test_a_connection_that_opens_is_greeted(cores: Cores) -> None:
    assert cores.step(ME, events.PeerConnected(1)).sends
