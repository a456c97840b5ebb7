"""When a replica gives up on the primary, and when it must not (R19, R26, R36)."""

import pytest
from cores import SMALL, Cores, sent, votes_in
from view_changes import count_own, new_view, quiet, view_change

from pbft.core import events
from pbft.core.output import Output
from pbft.messages import Checkpoint, Status, Suspect, Verified, ViewChange

PRIMARY, BACKUP = 0, 2
REQUEST_MS, SILENCE_MS = SMALL.request_timeout_ms, SMALL.heartbeat_timeout_ms


@pytest.fixture
def cores() -> Cores:
    return Cores()


def blamed(output: Output) -> list[int]:
    """The views whose primary this replica suspects aloud."""
    return [suspect.view for _, suspect in sent(output, Suspect)]


def left_for(output: Output) -> list[int]:
    return [change.view for change in votes_in(output, ViewChange)]


def execute(cores: Cores, i: int, seq: int, *requests: Verified, view: int = 0) -> Output:
    content = cores.content(*requests)
    votes = cores.commit_votes(content, seq, view)
    cores.step(i, events.CommittedBatchReceived(votes, content, 3))
    return cores.step(i, cores.executed(seq, content, False))


def beat(cores: Cores, sender: int) -> Output:
    return cores.receive(BACKUP, Status(sender, 0, True, 0, 0, ()))


# -- a request waits


@pytest.mark.rule("R26")
def test_the_timer_starts_with_the_first_waiting_request_and_is_not_pushed_back(
    cores: Cores,
) -> None:
    cores.ask(BACKUP, cores.request(client=0))
    cores.tick(BACKUP, REQUEST_MS - 1)
    cores.ask(BACKUP, cores.request(client=1))
    assert blamed(cores.tick(BACKUP, 1)) == [0]


@pytest.mark.rule("R26")
def test_a_replica_for_which_alone_nothing_executes_does_not_leave_alone(cores: Cores) -> None:
    """It could vote in no lower view any more (R27), and nobody would follow."""
    cores.ask(BACKUP, cores.request())
    said = []
    for _ in range(20):
        output = cores.tick(BACKUP, REQUEST_MS)
        said += blamed(output)
        assert not left_for(output)
    assert said == [0] * 20, "it goes on saying so"
    assert left_for(cores.receive(BACKUP, Suspect(3, 0))) == [1]


@pytest.mark.rule("R26")
def test_the_timer_stops_when_nothing_waits(cores: Cores) -> None:
    request = cores.request()
    cores.ask(BACKUP, request)
    execute(cores, BACKUP, 1, request)
    assert not blamed(cores.tick(BACKUP, 10 * REQUEST_MS))


@pytest.mark.rule("R26")
def test_the_timer_starts_over_while_others_wait(cores: Cores) -> None:
    cores.ask(BACKUP, cores.request(client=0))
    cores.ask(BACKUP, cores.request(client=1))
    cores.tick(BACKUP, REQUEST_MS - 1)
    execute(cores, BACKUP, 1, cores.request(client=0))
    assert not blamed(cores.tick(BACKUP, REQUEST_MS - 1))
    assert blamed(cores.tick(BACKUP, 1)) == [0]


@pytest.mark.rule("R26")
def test_an_invalid_or_settled_request_starts_no_timer(cores: Cores) -> None:
    request = cores.request()
    execute(cores, BACKUP, 1, request)
    cores.ask(BACKUP, request)
    cores.ask(BACKUP, cores.request(bundle=SMALL.client_window + 2))  # far ahead of its window
    assert not blamed(cores.tick(BACKUP, REQUEST_MS))


@pytest.mark.rule("R26")
def test_requests_that_wait_are_on_the_new_primarys_clock(cores: Cores) -> None:
    cores.ask(BACKUP, cores.request())
    cores.tick(BACKUP, REQUEST_MS - 1)
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    assert not blamed(cores.tick(BACKUP, REQUEST_MS - 1))
    assert blamed(cores.tick(BACKUP, 1)) == [1]


@pytest.mark.rule("R36")
@pytest.mark.parametrize("progress", [False, True])
def test_a_primary_after_failed_views_gets_more_time_until_there_is_progress(
    cores: Cores, progress: bool
) -> None:
    cores.ask(BACKUP, cores.request())
    cores.tick(BACKUP, REQUEST_MS)
    count_own(cores, BACKUP, cores.receive(BACKUP, Suspect(3, 0)))  # it leaves for 1
    for change in quiet(cores, 1, 0, 1, 3):
        cores.receive(BACKUP, change)
    assert left_for(cores.tick(BACKUP, 2 * SMALL.view_timeout_ms)) == [2], "view 1 has failed"
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 3, 0, 1, 3)))
    if progress:
        execute(cores, BACKUP, 1, cores.request(client=1), view=3)
    assert bool(blamed(cores.tick(BACKUP, REQUEST_MS))) is progress


@pytest.mark.rule("R19")
def test_a_request_that_too_many_batches_pass_by_is_starved(cores: Cores) -> None:
    cores.ask(BACKUP, cores.request(client=2))
    for seq in range(1, SMALL.fairness_batches):
        output = execute(cores, BACKUP, seq, cores.request(client=0, bundle=seq))
        assert not blamed(output), "nobody is blamed while batches execute and it may come"
        cores.pass_time(REQUEST_MS // 2)
        watch(cores, seq)
    last = SMALL.fairness_batches
    assert blamed(execute(cores, BACKUP, last, cores.request(bundle=last))) == [0]


def watch(cores: Cores, seq: int) -> None:
    """Keep the window moving, as checkpoints of the others do."""
    if seq % SMALL.checkpoint_interval == 0:
        for voter in (0, 1, 3):
            cores.receive(BACKUP, Checkpoint(voter, seq, b"s" * 32))


@pytest.mark.rule("R19")
def test_a_new_primary_starts_with_fresh_patience(cores: Cores) -> None:
    cores.ask(BACKUP, cores.request(client=2))
    for seq in (1, 2, 3):
        execute(cores, BACKUP, seq, cores.request(client=0, bundle=seq))
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    pool = cores.cores[BACKUP].pool
    assert not pool.starved(SMALL.fairness_batches + 2)
    assert pool.starved(SMALL.fairness_batches + 3)


# -- the primary is not heard


@pytest.mark.rule("R26")
def test_a_silent_primary_is_suspected_aloud_and_nobody_leaves_alone(cores: Cores) -> None:
    cores.step(BACKUP, events.Started(1))
    beat(cores, PRIMARY)
    assert not sent(cores.tick(BACKUP, SILENCE_MS - 1), Suspect)
    output = cores.tick(BACKUP, 1)
    assert sent(output, Suspect) == [(None, Suspect(BACKUP, 0))]
    for _ in range(20):
        output = cores.tick(BACKUP, SILENCE_MS)
        assert sent(output, Suspect), "it goes on saying so"
        assert not output.own


@pytest.mark.rule("R26")
def test_other_replicas_do_not_speak_for_the_primary(cores: Cores) -> None:
    beat(cores, PRIMARY)
    cores.tick(BACKUP, SILENCE_MS - 1)
    beat(cores, 3)
    relayed = cores.sign(PRIMARY, Status(PRIMARY, 0, True, 0, 0, ()))
    cores.step(BACKUP, events.Received(relayed, 3))
    assert sent(cores.tick(BACKUP, 1), Suspect)


@pytest.mark.rule("R26")
def test_a_primary_that_speaks_is_not_suspected(cores: Cores) -> None:
    for _ in range(20):
        beat(cores, PRIMARY)
        assert not sent(cores.tick(BACKUP, SILENCE_MS - 1), Suspect)


@pytest.mark.rule("R26")
def test_a_view_that_is_entered_and_stays_silent_is_suspected(cores: Cores) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    output = cores.tick(BACKUP, max(SILENCE_MS, REQUEST_MS))
    assert sent(output, Suspect) == [(None, Suspect(BACKUP, 1))]


@pytest.mark.rule("R26")
@pytest.mark.parametrize(("n", "w"), [(4, 2), (7, 3)])
def test_a_weak_quorum_of_suspects_leaves(n: int, w: int) -> None:
    cores = Cores(n)
    voices = [i for i in range(n) if i not in (PRIMARY, BACKUP)][:w]
    for voice in voices[:-1]:
        for _ in range(3):
            assert not cores.receive(BACKUP, Suspect(voice, 0)).own, "signers count, not messages"
    assert left_for(cores.receive(BACKUP, Suspect(voices[-1], 0))) == [1]


@pytest.mark.rule("R26")
@pytest.mark.parametrize("voice_first", [False, True])
def test_who_has_left_for_a_higher_view_is_a_voice_that_does_not_expire(
    cores: Cores, voice_first: bool
) -> None:
    """It did so on voices that this replica may have missed, and never comes back (R27)."""
    gone = view_change(cores, 3, 2)
    cores.ask(BACKUP, cores.request())
    if voice_first:
        assert not left_for(cores.tick(BACKUP, REQUEST_MS))
        assert left_for(cores.receive(BACKUP, gone)) == [1]
    else:
        assert not left_for(cores.receive(BACKUP, gone))
        execute(cores, BACKUP, 1, cores.request())
        assert not left_for(cores.tick(BACKUP, 4 * REQUEST_MS - 1)), "it has nothing to complain of"
        cores.ask(BACKUP, cores.request(bundle=2))
        assert left_for(cores.tick(BACKUP, REQUEST_MS)) == [1]


@pytest.mark.rule("R26")
def test_suspects_of_other_views_do_not_count(cores: Cores) -> None:
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    for voice, view in ((0, 0), (3, 0), (1, 2)):
        assert not cores.receive(BACKUP, Suspect(voice, view)).own
    cores.receive(BACKUP, Suspect(3, 1))
    assert left_for(cores.receive(BACKUP, Suspect(0, 1))) == [2]


@pytest.mark.rule("R26")
def test_a_closed_connection_is_a_hint_and_no_more(cores: Cores) -> None:
    beat(cores, PRIMARY)
    output = cores.step(BACKUP, events.PeerDisconnected(PRIMARY))
    assert not output.sends
    assert sent(cores.tick(BACKUP, 150), Suspect), "sooner than without the hint"


@pytest.mark.rule("R26")
def test_a_closed_connection_to_a_backup_says_nothing_of_the_primary(cores: Cores) -> None:
    beat(cores, PRIMARY)
    cores.step(BACKUP, events.PeerDisconnected(3))
    assert not sent(cores.tick(BACKUP, 150), Suspect)


@pytest.mark.rule("R26")
def test_a_primary_that_is_back_in_time_is_not_suspected(cores: Cores) -> None:
    cores.step(BACKUP, events.PeerDisconnected(PRIMARY))
    beat(cores, PRIMARY)
    assert not sent(cores.tick(BACKUP, 150), Suspect)


@pytest.mark.rule("R26")
def test_a_primary_that_only_hangs_up_again_and_again_is_suspected(cores: Cores) -> None:
    beat(cores, PRIMARY)
    outputs = []
    for _ in range(0, 2 * SILENCE_MS, 100):
        cores.step(BACKUP, events.PeerDisconnected(PRIMARY))
        outputs.append(cores.tick(BACKUP, 100))
    assert [output for output in outputs if sent(output, Suspect)]


@pytest.mark.rule("R26")
def test_a_primary_suspects_nobody_and_a_replica_between_views_neither(cores: Cores) -> None:
    cores.step(PRIMARY, events.Started(1))
    cores.ask(PRIMARY, cores.request())
    assert not sent(cores.tick(PRIMARY, 10 * SILENCE_MS), Suspect)
    beat(cores, PRIMARY)
    for voice in (0, 3):
        cores.receive(BACKUP, Suspect(voice, 0))
    assert not sent(cores.tick(BACKUP, 10 * SILENCE_MS), Suspect)


@pytest.mark.rule("R26")
def test_two_timers_that_end_at_once_raise_one_voice(cores: Cores) -> None:
    cores.ask(BACKUP, cores.request())
    cores.pass_time(REQUEST_MS - 1)
    beat(cores, PRIMARY)
    output = cores.tick(BACKUP, 10 * REQUEST_MS)
    assert blamed(output) == [0]
