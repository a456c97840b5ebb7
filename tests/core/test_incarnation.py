"""Each start is counted, and a disk that has forgotten is found out (R41)."""

import pytest
from cores import SMALL, Cores, seen, sent, votes_in

from pbft.core import events
from pbft.messages import Checkpoint, Commit, Incarnation, IncarnationSeen, Prepare

ME = 2
NONCE = 99


@pytest.fixture
def cores() -> Cores:
    cores = Cores()
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")
    return cores


def answers(cores: Cores, *highest: tuple[int, int]) -> list[str | None]:
    """Let peers answer (who, the highest start they have seen begin); what makes it halt."""
    return [cores.receive(ME, seen(i, ME, NONCE, known)).halt for i, known in highest]


def may_vote(cores: Cores) -> bool:
    content = cores.content(cores.request())
    return bool(votes_in(cores.step(ME, cores.proposal(content, 1)), Prepare))


@pytest.mark.rule("R41")
def test_asking_counts_nothing(cores: Cores) -> None:
    """So an emptied disk gets no higher, however often it is started."""
    for _ in range(3):
        cores.restart(ME)
        output = cores.outputs[ME][-1]
        assert sent(output, Incarnation) == [(None, Incarnation(ME, 1, NONCE, False))]
        assert not [write for write in output.persist if write.key == b"incarnations"]


@pytest.mark.rule("R41")
def test_a_start_is_durable_before_it_is_told(cores: Cores) -> None:
    for number in (1, 2):
        assert answers(cores, (0, number - 1)) == [None]
        output = cores.receive(ME, seen(1, ME, NONCE, number - 1))
        assert sent(output, Incarnation) == [(None, Incarnation(ME, number, NONCE, True))]
        assert b"incarnations" in [write.key for write in output.persist]
        cores.restart(ME)
        assert sent(cores.outputs[ME][-1], Incarnation)[0][1] == Incarnation(
            ME, number + 1, NONCE, False
        )


@pytest.mark.rule("R41")
@pytest.mark.parametrize(("n", "enough"), [(4, 2), (5, 3), (7, 4)])
def test_a_replica_votes_once_a_quorum_with_itself_has_seen_it_begin(n: int, enough: int) -> None:
    cores = Cores(n)
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")
    peers = [i for i in range(n) if i != ME]
    answers(cores, *((i, 0) for i in peers))
    answers(cores, *((i, 1) for i in peers[: enough - 1] * 2))
    assert not may_vote(cores)
    output = cores.receive(ME, seen(peers[enough - 1], ME, NONCE, 1))
    assert votes_in(output, Prepare), "what it had accepted in silence gets its vote now"


@pytest.mark.rule("R41")
@pytest.mark.parametrize(("n", "enough"), [(4, 2), (5, 3), (7, 4)])
def test_it_begins_once_a_quorum_with_itself_knows_of_no_later_start(n: int, enough: int) -> None:
    cores = Cores(n)
    cores.restart(ME)
    peers = [i for i in range(n) if i != ME]
    answers(cores, *((i, 0) for i in peers[: enough - 1] * 2))
    assert not cores.disks[ME].get(("view", b"incarnations"))
    answers(cores, (peers[enough - 1], 0))
    assert cores.disks[ME].get(("view", b"incarnations"))


@pytest.mark.rule("R41")
def test_a_weak_quorum_that_remembers_later_starts_silences_it(cores: Cores) -> None:
    answers(cores, (0, 1))
    assert cores.cores[ME].amnesia.goal is None, "one may lie"
    answers(cores, (3, 5))
    assert cores.cores[ME].amnesia.goal is not None


@pytest.mark.rule("R41")
@pytest.mark.parametrize("voted", [(1, 0), (0, 1)])
def test_a_weak_quorum_that_has_votes_unknown_to_the_disk_silences_it(
    cores: Cores, voted: tuple[int, int]
) -> None:
    """The disk of an earlier moment of the same start, put back."""
    cores.receive(ME, seen(0, ME, NONCE, 0, voted=voted))
    assert cores.cores[ME].amnesia.goal is None, "one may lie"
    cores.receive(ME, seen(3, ME, NONCE, 0, voted=voted))
    assert cores.cores[ME].amnesia.goal is not None


@pytest.mark.rule("R41")
def test_peers_remember_the_last_votes_of_each_other(cores: Cores) -> None:
    cores.receive(0, Prepare(3, 0, 5, bytes(32)))
    cores.receive(0, Commit(3, 2, 4, bytes(32)))
    cores.receive(0, Checkpoint(3, 8, bytes(32)))
    output = cores.receive(0, Incarnation(3, 1, 7, False))
    [(_, answer)] = sent(output, IncarnationSeen)
    assert isinstance(answer, IncarnationSeen)
    assert (answer.voted_view, answer.voted_seq) == (2, 8)


@pytest.mark.rule("R41")
def test_votes_that_the_disk_knows_of_are_no_news(cores: Cores) -> None:
    content = cores.content(cores.request())
    cores.confirm(ME)
    cores.step(ME, cores.proposal(content, 1))
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")
    for i in (0, 1):
        cores.receive(ME, seen(i, ME, NONCE, 0, voted=(0, 1)))
    assert cores.cores[ME].amnesia.goal is None
    assert cores.disks[ME].get(("view", b"incarnations")), "it has begun"


@pytest.mark.rule("R41")
def test_one_liar_neither_stops_it_nor_makes_it_begin(cores: Cores) -> None:
    assert answers(cores, (3, 2**62), (0, 0)) == [None] * 2
    assert not cores.disks[ME], "the liar's answer is none of the q"
    answers(cores, (1, 0), (1, 1), (0, 1))
    assert may_vote(cores)


@pytest.mark.rule("R41")
def test_late_answers_to_the_question_do_not_say_that_the_start_is_durable(cores: Cores) -> None:
    answers(cores, (0, 0), (1, 0), (3, 0), (0, 0), (1, 0))
    assert not may_vote(cores)


@pytest.mark.rule("R41")
def test_answers_about_another_start_or_another_replica_do_not_count(cores: Cores) -> None:
    for i in (0, 1, 3):
        cores.receive(ME, seen(i, ME, NONCE + 1, 0))
        cores.receive(ME, seen(i, 1, NONCE, 0))
    assert not cores.disks[ME]


@pytest.mark.rule("R41")
def test_it_asks_until_it_is_answered(cores: Cores) -> None:
    for _ in range(3):
        assert sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)
    answers(cores, (0, 0), (1, 0))
    [(_, again)] = sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)
    assert again == Incarnation(ME, 1, NONCE, True)
    answers(cores, (0, 1), (1, 1))
    assert not sent(cores.tick(ME, SMALL.heartbeat_interval_ms), Incarnation)


def told(cores: Cores, number: int, begun: bool) -> int:
    """What replica 0 answers to a start of replica 3."""
    output = cores.receive(0, Incarnation(3, number, 7, begun))
    [(to, answer)] = sent(output, IncarnationSeen)
    assert to == 3
    assert isinstance(answer, IncarnationSeen)
    assert (answer.about, answer.nonce) == (3, 7)
    return answer.highest


@pytest.mark.rule("R41")
@pytest.mark.parametrize("restarted", [False, True])
def test_peers_remember_durably_what_has_begun_and_nothing_else(
    cores: Cores, restarted: bool
) -> None:
    assert told(cores, 4, begun=False) == 0
    assert told(cores, 4, begun=True) == 4
    if restarted:
        cores.restart(0)
    assert told(cores, 5, begun=False) == 4
    assert told(cores, 1, begun=False) == 4, "an emptied disk"
    assert told(cores, 2, begun=True) == 4


@pytest.mark.rule("R41")
def test_a_confirmed_replica_is_not_stopped_by_late_answers(cores: Cores) -> None:
    answers(cores, (0, 0), (1, 0), (0, 1), (1, 1))
    assert answers(cores, (3, 9), (0, 9)) == [None, None]
    assert may_vote(cores)


@pytest.mark.rule("R41")
def test_a_connection_that_opens_is_greeted(cores: Cores) -> None:
    assert cores.step(ME, events.PeerConnected(1)).sends


@pytest.mark.rule("R41")
def test_one_that_starts_is_reminded_of_the_starts_of_others(cores: Cores) -> None:
    """In their own words, so that nobody can put a number into another one's mouth."""
    began = cores.envelope(3, Incarnation(3, 4, 5, True))
    cores.receive(0, Incarnation(3, 4, 5, True))
    cores.restart(0)
    [(_, answer)] = sent(cores.receive(0, Incarnation(ME, 1, NONCE, False)), IncarnationSeen)
    assert isinstance(answer, IncarnationSeen)
    assert answer.starts == (began,)
    cores.receive(ME, answer)
    cores.restart(ME)
    [(_, answer)] = sent(cores.receive(ME, Incarnation(3, 1, 8, False)), IncarnationSeen)
    assert isinstance(answer, IncarnationSeen)
    assert answer.highest == 4
