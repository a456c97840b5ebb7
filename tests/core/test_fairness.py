"""Who waits how long, and how much may wait (R18, R19, R25)."""

import pytest
from cores import SMALL, START, Cores, sent
from msgspec.structs import replace

from pbft.config import Parameters
from pbft.core import events
from pbft.core.requests import RequestPool
from pbft.core.session_facts import EvictedMark, SessionView
from pbft.messages import Suspect, Verified

BACKUP = 1


def facts_of(request: Verified, low: int) -> tuple[SessionView, ...]:
    body = request.body
    return (SessionView(body.client, body.session, low, (body.bundle,)),)


@pytest.mark.rule("R18")
@pytest.mark.rule("R19")
@pytest.mark.parametrize("evicted", [False, True])
def test_what_a_later_bundle_has_settled_blames_no_primary(evicted: bool) -> None:
    """A client sends bundle 3 to the backups alone, and bundle 6, which gives it up, to all."""
    cores = Cores()
    three, six = cores.request(bundle=3), cores.request(bundle=6, acknowledged=5)
    cores.ask(BACKUP, three)
    content = cores.content(six)
    cores.step(BACKUP, events.CommittedBatchReceived(cores.commit_votes(content, 1), content, 0))
    mark = EvictedMark(six.body.client, six.body.session, six.body.session)
    facts = (mark,) if evicted else facts_of(six, low=5)
    cores.step(BACKUP, events.Executed(1, None, facts, None))
    assert len(cores.cores[BACKUP].pool) == 0
    assert not sent(cores.tick(BACKUP, SMALL.request_timeout_ms + 1), Suspect)


@pytest.mark.rule("R19")
def test_honest_overload_starves_nobody() -> None:
    """Every client always has two requests waiting, far more than a batch holds."""
    cores = Cores(clients=40, parameters=Parameters(max_batch_requests=7, fairness_batches=16))
    pool = RequestPool(cores.contexts[0])
    bundles = [0] * 40

    def refill(client: int, seq: int) -> None:
        bundles[client] += 1
        pool.add(cores.request(client=client, bundle=bundles[client]), b"", seq)

    for client in (*range(40), *range(40)):
        refill(client, 0)
    keys = {signer.public_key: client for client, signer in enumerate(cores.client_signers)}
    for seq in range(1, 200):
        batch = pool.next_batch()
        assert len(batch) == 7
        pool.executed([waiting.request for waiting in batch])
        assert not pool.starved(seq)
        for waiting in batch:
            refill(keys[waiting.request.client], seq)


@pytest.mark.rule("R25")
def test_what_waits_of_one_client_is_bounded_in_bytes() -> None:
    cores = Cores(parameters=replace(SMALL, max_batch_bytes=10_000))
    pool = RequestPool(cores.contexts[0])
    requests = [cores.request(bundle=n, operations=(bytes(9_000),)) for n in range(1, 6)]
    assert [pool.add(r, b"", 0) for r in requests] == [True, True, True, True, False]
    assert pool.add(cores.request(client=1), b"", 0)
    pool.executed([requests[0].body])
    assert pool.add(requests[4], b"", 0)


def suspect(cores: Cores, replica: int) -> int:
    cores.receive(BACKUP, Suspect(replica, 0))
    return cores.cores[BACKUP].views.view


@pytest.mark.rule("R26")
@pytest.mark.parametrize(("apart_ms", "view"), [(SMALL.heartbeat_timeout_ms, 1), (3_600_000, 0)])
def test_voices_of_different_times_do_not_add_up(apart_ms: int, view: int) -> None:
    cores = Cores()
    assert suspect(cores, 2) == 0
    cores.pass_time(apart_ms)
    assert suspect(cores, 3) == view


@pytest.mark.rule("R26")
def test_a_voice_that_is_repeated_stays_fresh() -> None:
    cores = Cores()
    for _ in range(10):
        assert suspect(cores, 2) == 0
        cores.pass_time(SMALL.heartbeat_timeout_ms)
    assert suspect(cores, 3) == 1


@pytest.mark.rule("R12")
@pytest.mark.rule("R25")
def test_late_proposals_are_suspected_aloud_now_and_then_only() -> None:
    cores = Cores()
    core, said = cores.cores[BACKUP], 0
    late = START.wall - 1000 * (SMALL.clock_tolerance_ms + 1)
    for seq in range(1, SMALL.window + 1):
        content = cores.content(cores.request(bundle=seq), time=late)
        output = cores.step(BACKUP, cores.proposal(content, seq))
        said += len(sent(output, Suspect))
        assert core.log.get(seq).pre_prepare is not None
    assert said == 1
