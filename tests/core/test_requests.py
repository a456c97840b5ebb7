"""Clients' requests on their way to a batch: dedupe, relays, replies again, sessions."""

import pytest
from cores import SMALL, Cores, reasons, sent, summary_of

from pbft.core import events
from pbft.core.output import ResendReply
from pbft.core.requests import SessionTable, Standing
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import Proposal, Request, Suspect, Verified

PRIMARY, BACKUP = 0, 1
TIMEOUT_MS = SMALL.request_timeout_ms
CLIENT = b"c" * 32


@pytest.fixture
def cores() -> Cores:
    return Cores()


def execute(
    cores: Cores, i: int, seq: int, *requests: Verified, facts: tuple | None = None
) -> None:
    """Let core `i` execute a batch that others have committed."""
    content = cores.content(*requests)
    votes = cores.commit_votes(content, seq)
    cores.step(i, events.CommittedBatchReceived(votes, content, 2))
    executed = cores.executed(seq, content, False)
    if facts is not None:
        executed = events.Executed(seq, None, facts, None)
    cores.step(i, executed)


def session(request: Verified, low: int, *executed: int) -> SessionView:
    return SessionView(request.body.client, request.body.session, low, executed)


# -- R14: relays, timers, replies again


@pytest.mark.rule("R14")
def test_a_backup_relays_a_request_to_the_primary_and_starts_its_timer(cores: Cores) -> None:
    request = cores.request()
    output = cores.ask(BACKUP, request)
    assert sent(output, Request) == [(PRIMARY, request.body)]
    assert output.sends[0].packet == request.envelope
    assert sent(cores.tick(BACKUP, TIMEOUT_MS), Suspect) == [(None, Suspect(BACKUP, 0))]


@pytest.mark.rule("R14")
def test_a_backup_relays_again_when_the_client_asks_again(cores: Cores) -> None:
    request = cores.request()
    cores.ask(BACKUP, request)
    assert sent(cores.ask(BACKUP, request), Request) == [(PRIMARY, request.body)]


@pytest.mark.rule("R14")
def test_a_relayed_request_that_is_known_is_not_relayed_on(cores: Cores) -> None:
    request = cores.request()
    cores.step(BACKUP, events.Received(request, 2))
    assert not cores.step(BACKUP, events.Received(request, 3)).sends


@pytest.mark.rule("R14")
def test_the_primary_relays_nothing_and_suspects_nobody(cores: Cores) -> None:
    assert not cores.ask(PRIMARY, cores.request()).sends
    assert not sent(cores.tick(PRIMARY, 10 * TIMEOUT_MS), Suspect)


@pytest.mark.rule("R14")
def test_an_executed_request_is_answered_again_and_not_ordered(cores: Cores) -> None:
    request = cores.request()
    execute(cores, BACKUP, 1, request)
    output = cores.ask(BACKUP, request)
    assert [type(answer) for answer in output.answers] == [ResendReply]
    assert not output.sends
    assert not cores.cores[BACKUP].pool


@pytest.mark.rule("R14")
def test_a_copy_that_a_replica_relays_is_not_answered(cores: Cores) -> None:
    request = cores.request()
    execute(cores, BACKUP, 1, request)
    assert not cores.step(BACKUP, events.Received(request, 2)).answers


@pytest.mark.rule("R14")
def test_a_reply_is_sent_again_at_a_bounded_rate(cores: Cores) -> None:
    request = cores.request()
    execute(cores, BACKUP, 1, request)
    answers = [answer for _ in range(1000) for answer in cores.ask(BACKUP, request).answers]
    assert 1 <= len(answers) <= 100


@pytest.mark.rule("R19")
def test_a_flood_of_one_client_does_not_make_a_backup_blame_the_primary(cores: Cores) -> None:
    for i in range(4):
        cores.step(i, events.Started(i))
    cores.run()
    window = SMALL.client_window
    for number in range(8 * window):
        cores.ask(PRIMARY, cores.request(session=1 + number // window, bundle=1 + number % window))
    late = cores.request(session=9)
    cores.ask(BACKUP, late)
    refused = cores.step(PRIMARY, events.Received(late, BACKUP))
    assert reasons(refused) == ["request-over-quota"]
    cores.outputs[BACKUP].clear()  # the relay has been delivered
    for _ in range(15):
        cores.run()
        cores.pass_time(100)
        for i in range(4):
            cores.step(i, events.Tick())
    cores.run()
    assert cores.states == [cores.states[PRIMARY]] * 4
    assert [core.views.active for core in cores.cores] == [True] * 4
    assert [core.views.view for core in cores.cores] == [0] * 4


# -- R15: one bundle number, one execution


@pytest.mark.rule("R15")
def test_of_two_bundles_with_one_number_only_the_first_waits(cores: Cores) -> None:
    one, other = cores.request(operations=(b"one",)), cores.request(operations=(b"other",))
    cores.ask(PRIMARY, one)
    cores.ask(PRIMARY, other)
    [proposal] = cores.step(PRIMARY, events.TurnEnded()).sends
    assert isinstance(proposal.packet, Proposal)
    assert proposal.packet.batch.requests == (one.envelope,)


@pytest.mark.rule("R15")
def test_executing_one_of_two_bundles_with_one_number_clears_the_timer_of_the_other(
    cores: Cores,
) -> None:
    one, other = cores.request(operations=(b"one",)), cores.request(operations=(b"other",))
    cores.ask(BACKUP, other)
    execute(cores, BACKUP, 1, one)
    assert not cores.cores[BACKUP].pool
    assert not sent(cores.tick(BACKUP, 5 * TIMEOUT_MS), Suspect)


@pytest.mark.rule("R15")
def test_different_clients_sessions_and_bundles_do_not_collide(cores: Cores) -> None:
    requests = [
        cores.request(client, bundle, number)
        for client in (0, 1)
        for number in (1, 2)
        for bundle in (1, 2)
    ]
    for request in requests:
        cores.ask(PRIMARY, request)
    assert len(cores.cores[PRIMARY].pool) == len(requests)


@pytest.mark.rule("R15")
def test_what_is_being_ordered_is_not_proposed_twice(cores: Cores) -> None:
    request = cores.request()
    cores.ask(PRIMARY, request)
    assert len(cores.step(PRIMARY, events.TurnEnded()).sends) == 1
    cores.ask(PRIMARY, request)
    assert not cores.step(PRIMARY, events.TurnEnded()).sends


# -- R16-R18, R45: what sessions say


@pytest.mark.rule("R18")
def test_a_late_copy_of_an_executed_request_never_waits_again(cores: Cores) -> None:
    request = cores.request(bundle=3)
    execute(cores, BACKUP, 1, request)
    for peer in (request.body.client, 2, 3):
        cores.step(BACKUP, events.Received(request, peer))
    assert not cores.cores[BACKUP].pool
    assert not sent(cores.tick(BACKUP, 5 * TIMEOUT_MS), Suspect)


@pytest.mark.rule("R18")
def test_a_late_copy_never_waits_again_after_a_restart(cores: Cores) -> None:
    request = cores.request(bundle=3)
    execute(cores, BACKUP, 1, request)
    core = cores.cores[BACKUP]
    core.pool.sessions.reset((session(request, 2, 3),))
    cores.ask(BACKUP, request)
    assert not core.pool


@pytest.mark.rule("R18")
def test_what_a_transferred_state_has_settled_waits_no_more(cores: Cores) -> None:
    request = cores.request()
    cores.ask(BACKUP, request)
    settled = (session(request, 0, 1),)
    cores.step(BACKUP, events.StateInstalled(summary_of(4), settled, None))
    assert not cores.cores[BACKUP].pool


@pytest.mark.rule("R26")
def test_nobody_is_suspected_when_a_transferred_state_has_settled_everything(
    cores: Cores,
) -> None:
    request = cores.request()
    cores.ask(BACKUP, request)
    settled = (session(request, 0, 1),)
    cores.step(BACKUP, events.StateInstalled(summary_of(4), settled, None))
    assert not sent(cores.tick(BACKUP, TIMEOUT_MS), Suspect)


@pytest.mark.rule("R16")
def test_a_later_bundle_leaves_an_earlier_one_of_its_window_executable(cores: Cores) -> None:
    later = cores.request(bundle=SMALL.client_window)
    execute(cores, PRIMARY, 1, later, facts=(session(later, 0, SMALL.client_window),))
    earlier = cores.request(bundle=1)
    cores.ask(PRIMARY, earlier)
    assert len(cores.cores[PRIMARY].pool) == 1


@pytest.mark.rule("R16")
@pytest.mark.parametrize(
    ("bundle", "acknowledged", "standing"),
    [
        (0, 0, Standing.EXECUTED),  # the session is open
        (3, 0, Standing.STALE),  # acknowledged
        (4, 0, Standing.NEW),
        (5, 0, Standing.EXECUTED),
        (11, 0, Standing.NEW),  # the last of the window
        (12, 0, Standing.AHEAD),
        (12, 4, Standing.NEW),  # it moves the window itself
        (2**63 - 1, 2**63 - 1, Standing.NEW),  # acknowledges everything before it
        (2**63 - 1, 0, Standing.AHEAD),
    ],
)
def test_where_a_bundle_stands_in_its_session(
    bundle: int, acknowledged: int, standing: Standing
) -> None:
    table = SessionTable(8)
    table.update([SessionView(CLIENT, 1, 3, (5, 7))])
    assert table.standing(Request(CLIENT, 1, bundle, acknowledged, False, ())) is standing


@pytest.mark.rule("R16")
@pytest.mark.parametrize(("bundle", "reason"), [(9, "request-ahead"), (0, None)])
def test_a_bundle_far_ahead_of_its_window_is_refused(
    cores: Cores, bundle: int, reason: str | None
) -> None:
    opening = cores.request(bundle=1)
    execute(cores, BACKUP, 1, opening, facts=(session(opening, 0),))
    output = cores.ask(BACKUP, cores.request(bundle=bundle))
    assert reasons(output) == ([reason] if reason else [])
    assert not cores.cores[BACKUP].pool


@pytest.mark.rule("R45")
def test_an_evicted_session_never_becomes_new_again() -> None:
    table = SessionTable(8)
    table.update([SessionView(CLIENT, 2, 0, ()), SessionView(CLIENT, 5, 0, ())])
    table.update([EvictedMark(CLIENT, 2, 2)])
    for number in (0, 1, 2):
        for bundle in (0, 1, 7):
            request = Request(CLIENT, number, bundle, 0, False, ())
            assert table.standing(request) is Standing.EXPIRED
    assert table.standing(Request(CLIENT, 5, 1, 0, False, ())) is Standing.NEW
    assert table.standing(Request(CLIENT, 3, 0, 0, False, ())) is Standing.NEW


@pytest.mark.rule("R45")
def test_the_highest_evicted_number_never_falls() -> None:
    table = SessionTable(8)
    table.update([EvictedMark(CLIENT, 9, 9), EvictedMark(CLIENT, 4, 4)])
    assert table.standing(Request(CLIENT, 9, 1, 0, False, ())) is Standing.EXPIRED


@pytest.mark.rule("R45")
def test_a_live_session_below_the_highest_evicted_one_stays_alive() -> None:
    table = SessionTable(8)
    table.update([SessionView(CLIENT, 3, 0, ()), EvictedMark(CLIENT, 9, 9)])
    assert table.standing(Request(CLIENT, 3, 1, 0, False, ())) is Standing.NEW


@pytest.mark.rule("R45")
def test_one_clients_evictions_are_nobody_elses() -> None:
    table = SessionTable(8)
    table.update([EvictedMark(CLIENT, 9, 9)])
    assert table.standing(Request(b"d" * 32, 9, 1, 0, False, ())) is Standing.NEW


@pytest.mark.rule("R45")
def test_a_request_of_an_evicted_session_is_answered_and_never_ordered(cores: Cores) -> None:
    request = cores.request(session=2)
    execute(cores, BACKUP, 1, facts=(EvictedMark(request.body.client, 2, 2),))
    output = cores.ask(BACKUP, request)
    assert [type(answer) for answer in output.answers] == [ResendReply]
    assert not output.sends
    assert not cores.cores[BACKUP].pool


@pytest.mark.rule("R17")
def test_a_whole_state_replaces_what_was_known_of_sessions() -> None:
    table = SessionTable(8)
    table.update([SessionView(CLIENT, 1, 0, (1, 2)), EvictedMark(b"d" * 32, 3, 3)])
    table.reset([SessionView(CLIENT, 2, 4, (6,))])
    assert table.standing(Request(CLIENT, 1, 1, 0, False, ())) is Standing.NEW
    assert table.standing(Request(b"d" * 32, 3, 1, 0, False, ())) is Standing.NEW
    assert table.standing(Request(CLIENT, 2, 6, 0, False, ())) is Standing.EXECUTED


# -- R11


@pytest.mark.rule("R11")
def test_a_primary_that_repeats_requests_in_a_batch_still_gets_its_vote(cores: Cores) -> None:
    request = cores.request()
    execute(cores, BACKUP, 1, request)
    repeated = cores.content(request, request)
    output = cores.step(BACKUP, cores.proposal(repeated, 2))
    assert len(output.own) == 1
    assert not cores.cores[BACKUP].pool
