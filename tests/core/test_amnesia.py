"""A replica that has forgotten its votes is silent until they no longer matter (R41)."""

import pytest
from cores import SMALL, Cores, seen, sent, summary_of, votes_in
from view_changes import new_view, view_change

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.records import AmnesiaRecord
from pbft.messages import Checkpoint, Commit, Incarnation, Prepare, Read, Recovery, ViewChange

ME = 2
NONCE = 99
BEAT_MS = SMALL.heartbeat_interval_ms
CONFIRMED = 7
"""The start under which it goes on, since two peers have seen the one before."""


@pytest.fixture
def cores() -> Cores:
    return Cores()


def ask(cores: Cores) -> None:
    cores.restart(ME)
    cores.cores[ME].gate.silence("unconfirmed")


def forget(cores: Cores, *at: tuple[int, tuple[int, int]]) -> None:
    """Peers (who, its view and last executed) say that they have seen a later start."""
    ask(cores)
    for peer, position in at:
        cores.receive(ME, seen(peer, ME, NONCE, CONFIRMED - 1, at=position))
    for peer, _ in at:
        cores.receive(ME, seen(peer, ME, NONCE, CONFIRMED))


def goal(cores: Cores) -> tuple[int, int] | None:
    found = cores.cores[ME].amnesia.goal
    return found and (found.above_seq, found.above_view)


def stable(cores: Cores, seq: int, executed: bool = True) -> None:
    """A quorum vouches for the state after `seq`, which this replica has reached as well."""
    core = cores.cores[ME]
    digest = checkpoint_digest(summary_of(seq))
    for peer in (0, 1, 3):
        cores.receive(ME, Checkpoint(peer, seq, digest))
    if executed:
        core.queue.jump(seq)
        cores.step(ME, events.Executed(seq, summary_of(seq), (), None))


def enter(cores: Cores, view: int, stable_seq: int) -> None:
    proven = (
        (stable_seq, checkpoint_digest(summary_of(stable_seq))) if stable_seq else (0, bytes(32))
    )
    changes = [view_change(cores, i, view, stable=proven) for i in (0, 1, 3)]
    cores.receive(ME, new_view(cores, *changes))
    cores.step(ME, events.TurnEnded())


def may_vote(cores: Cores, seq: int, view: int) -> bool:
    proposal = cores.proposal(cores.content(cores.request()), seq, view)
    return bool(votes_in(cores.step(ME, proposal), Prepare))


@pytest.mark.rule("R41")
def test_the_goal_is_a_window_above_what_q_less_one_peers_have_executed(cores: Cores) -> None:
    forget(cores, (0, (0, 20)), (1, (0, 12)))
    assert goal(cores) == (20 + SMALL.window, 0)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("liar", [(2**62, 2**62), (0, 0)])
@pytest.mark.parametrize("order", [(0, 1, 3, 4, 5, 6), (4, 0, 1, 3, 5, 6), (6, 5, 4, 3, 1, 0)])
def test_no_liar_moves_the_goal(liar: tuple[int, int], order: tuple[int, ...]) -> None:
    """Of n = 7, any q-1 = 4 answers will do; one that comes late can still lower the goal."""
    cores = Cores(7)
    ask(cores)
    for peer in order:
        at = liar if peer == 4 else (3, 40)
        cores.receive(ME, seen(peer, ME, NONCE, 3, at=at))
    assert goal(cores) == (40 + SMALL.window, 3)


@pytest.mark.rule("R41")
def test_it_starts_under_a_number_that_its_peers_find_new_and_is_silent(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    core = cores.cores[ME]
    assert core.incarnations.confirmed
    assert core.incarnations.known(ME) == CONFIRMED
    assert core.gate.silent
    assert not may_vote(cores, 1, 0)
    assert not core.may_read(0)


@pytest.mark.rule("R41")
def test_that_it_has_forgotten_is_durable(cores: Cores) -> None:
    forget(cores, (0, (1, 9)), (1, (1, 9)))
    ask(cores)
    for number in (CONFIRMED, CONFIRMED + 1):
        for peer in (0, 1):
            voted = (2, 9 + SMALL.window)  # in the time that it has forgotten: no news
            cores.receive(ME, seen(peer, ME, NONCE, number, voted=voted, at=(5, 50)))
    assert cores.cores[ME].incarnations.confirmed
    assert goal(cores) == (9 + SMALL.window, 1), "the goal does not move away"
    assert not may_vote(cores, 1, 0)


@pytest.mark.rule("R41")
def test_it_announces_its_start_until_all_peers_have_answered(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    assert sent(cores.tick(ME, BEAT_MS), Incarnation)
    cores.receive(ME, seen(3, ME, NONCE, CONFIRMED))
    assert not sent(cores.tick(ME, BEAT_MS), Incarnation)


@pytest.mark.rule("R41")
def test_it_asks_for_help_with_every_heartbeat(cores: Cores) -> None:
    forget(cores, (0, (1, 4)), (1, (1, 4)))
    for _ in range(2):
        output = cores.tick(ME, BEAT_MS)
        assert sent(output, Recovery) == [(None, Recovery(ME, CONFIRMED, 4 + SMALL.window, 1))]


@pytest.mark.rule("R41")
def test_a_checkpoint_and_a_view_above_the_goal_end_it(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    above = SMALL.window + SMALL.checkpoint_interval
    stable(cores, above)
    enter(cores, 1, above)
    assert goal(cores) is None
    assert ("view", b"amnesia") not in cores.disks[ME]
    assert may_vote(cores, above + 1, 1)
    assert not sent(cores.tick(ME, BEAT_MS), Recovery)


@pytest.mark.rule("R41")
def test_a_view_alone_does_not_end_it(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    enter(cores, 1, 0)
    assert not may_vote(cores, 1, 1)


@pytest.mark.rule("R41")
def test_a_checkpoint_alone_does_not_end_it(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    above = SMALL.window + SMALL.checkpoint_interval
    stable(cores, above)
    cores.step(ME, events.TurnEnded())
    assert not may_vote(cores, above + 1, 0)


@pytest.mark.rule("R41")
@pytest.mark.parametrize("last", [SMALL.window])
def test_a_checkpoint_at_the_goal_is_not_above_it(cores: Cores, last: int) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    stable(cores, last)
    enter(cores, 1, last)
    assert not may_vote(cores, last + 1, 1)


@pytest.mark.rule("R20")
@pytest.mark.rule("R41")
def test_a_checkpoint_that_it_has_not_executed_itself_does_not_end_it(cores: Cores) -> None:
    """Or it would answer fast reads from a state before writes that it has helped to commit."""
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    above = SMALL.window + SMALL.checkpoint_interval
    stable(cores, above, executed=False)
    enter(cores, 1, above)
    client = cores.client_signers[0].public_key
    output = cores.step(ME, events.Received(_read(cores, client), client))
    assert [answer.refused for answer in output.answers] == [True]  # type: ignore[union-attr]
    assert not may_vote(cores, above + 1, 1)


def _read(cores: Cores, client: bytes):
    envelope = cores.request().envelope
    return events.Verified(body=Read(client, 1, 0, (b"op",)), envelope=envelope)


@pytest.mark.rule("R27")
@pytest.mark.rule("R41")
def test_it_leaves_no_view(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    outputs = [cores.receive(ME, view_change(cores, i, 1)) for i in (0, 1, 3)]
    outputs.append(cores.tick(ME, SMALL.view_timeout_ms))
    assert not any(votes_in(output, ViewChange) for output in outputs)
    assert cores.cores[ME].views.active


@pytest.mark.rule("R21")
@pytest.mark.rule("R41")
def test_it_vouches_for_no_state_and_commits_nothing(cores: Cores) -> None:
    forget(cores, (0, (0, 0)), (1, (0, 0)))
    content = cores.content(cores.request())
    outputs = [cores.step(ME, cores.proposal(content, 1))]
    outputs += [cores.receive(ME, Prepare(i, 0, 1, content.digest)) for i in (1, 3)]
    cores.cores[ME].queue.jump(4)
    outputs += [cores.step(ME, events.Executed(4, summary_of(4), (), None))]
    assert not any(votes_in(output, kind) for output in outputs for kind in (Commit, Checkpoint))


def test_what_is_durable_is_what_must_be_passed(cores: Cores) -> None:
    forget(cores, (0, (3, 5)), (1, (2, 7)))
    cores.restart(ME)
    assert cores.cores[ME].amnesia.goal == AmnesiaRecord(7 + SMALL.window, 3)
