"""Sessions: opened, lost, opened anew; deadlines and bounds of operations (R45)."""

import pytest

from client.errors import DeadlineExceeded, LocalError, OutcomeUnknown, QueueFull
from client.numbering import MAX_NUMBER
from client.ordered import BUNDLES_IN_FLIGHT
from client.retry import FIRST_RETRY_US
from pbft.codec import encode_packet
from pbft.messages import (
    CONFLICT,
    OUT_OF_WINDOW,
    SESSION_EXPIRED,
    SESSION_REFUSED,
    OperationResult,
    Read,
)

SECOND = 1_000_000


@pytest.fixture
def fresh(make_driver, cluster):
    """A session that has not sent anything."""
    return make_driver(cluster)


@pytest.mark.rule("R45")
def test_a_session_is_opened_by_an_ordered_operation_of_its_own(fresh):
    ticket = fresh.session.submit(b"op")
    (opening,) = fresh.take_requests()
    body = fresh.request(opening)
    assert (body.bundle, body.operations) == (0, ())
    assert body.session >> 22 == fresh.now // 1000
    fresh.agree(opening)
    (request,) = fresh.take_requests()
    body = fresh.request(request)
    assert (body.bundle, body.operations) == (1, (b"op",))
    assert body.session == fresh.request(opening).session
    fresh.agree(request)
    assert fresh.result(ticket) == b"did op"


@pytest.mark.rule("R45")
def test_two_processes_that_draw_the_same_session_do_not_send_the_same_opening(
    make_driver, cluster, monkeypatch
):
    """Or both would take it for theirs, and one bundle of two different ones would be executed."""
    monkeypatch.setattr("client.ordered.session_number", lambda *_: 77)
    bodies = []
    for seed in (1, 2):
        driver = make_driver(cluster, seed=seed)
        driver.session.submit(b"op")
        bodies.append(driver.request(driver.take_requests()[0]))
    assert [body.session for body in bodies] == [77, 77]
    assert bodies[0] != bodies[1]


def test_an_idle_client_opens_no_session(fresh):
    assert fresh.take() == []
    assert fresh.wake_at is None


@pytest.mark.rule("R45")
def test_a_refused_session_number_is_replaced_by_one_at_least_as_high_as_told(fresh):
    fresh.session.submit(b"op")
    (opening,) = fresh.take_requests()
    lowest = fresh.request(opening).session + 2**50
    told = (OperationResult(0, lowest.to_bytes(8, "big")),)
    fresh.agree(opening, told, SESSION_REFUSED)
    (again,) = fresh.take_requests()
    assert fresh.request(again).bundle == 0
    assert lowest <= fresh.request(again).session < lowest + 2**22


@pytest.mark.parametrize("told", [(), (b"",), (b"\xff" * 9,)])
def test_a_strange_refusal_gives_a_session_number_in_bounds(fresh, told):
    fresh.session.submit(b"op")
    (opening,) = fresh.take_requests()
    fresh.agree(opening, tuple(OperationResult(0, value) for value in told), SESSION_REFUSED)
    (again,) = fresh.take_requests()
    assert 0 < fresh.request(again).session <= MAX_NUMBER


@pytest.mark.rule("R45")
def test_two_clients_with_one_key_open_different_sessions(make_driver, cluster):
    numbers = []
    for seed in (1, 2):
        driver = make_driver(cluster, seed)
        driver.session.submit(b"op")
        (opening,) = driver.take_requests()
        numbers.append(driver.request(opening).session)
    assert numbers[0] != numbers[1]


@pytest.mark.rule("R45")
@pytest.mark.parametrize("status", [SESSION_EXPIRED, CONFLICT, OUT_OF_WINDOW])
def test_operations_of_a_lost_session_are_never_sent_again(driver, status):
    first = driver.session.submit(b"first")
    (request,) = driver.take_requests()
    second = driver.session.submit(b"second")
    driver.take_requests()
    driver.agree(request, status=status)
    assert isinstance(driver.result(first), OutcomeUnknown)
    assert isinstance(driver.result(second), OutcomeUnknown)
    assert driver.take() == []

    third = driver.session.submit(b"third")
    (opening,) = driver.take_requests()
    assert driver.request(opening).bundle == 0
    assert driver.request(opening).session != driver.request(request).session
    driver.agree(opening)
    (again,) = driver.take_requests()
    assert driver.request(again).operations == (b"third",)
    driver.agree(again)
    assert driver.result(third) == b"did third"


@pytest.mark.rule("R45")
def test_a_client_that_was_idle_for_long_opens_a_new_session_before_its_old_one_is_evicted(driver):
    half = driver.cluster.config.parameters.session_idle_ms * 1000 // 2
    driver.session.submit(b"first")
    (request,) = driver.take_requests()
    driver.poll(half + 1)
    (again,) = driver.take_requests()  # what is in flight stays in its session
    assert again == request
    driver.agree(request)
    late = driver.session.submit(b"late")
    (opening,) = driver.take_requests()
    assert driver.request(opening).bundle == 0
    driver.agree(opening)
    (second,) = driver.take_requests()
    driver.agree(second)
    assert driver.result(late) == b"did late"
    driver.poll(half - SECOND)
    driver.session.submit(b"in time")
    (third,) = driver.take_requests()
    assert driver.request(third).session == driver.request(second).session


@pytest.mark.rule("R45")
def test_operations_never_sent_are_sent_in_the_new_session(driver):
    sent = driver.session.submit(b"sent")
    (request,) = driver.take_requests()
    for _ in range(BUNDLES_IN_FLIGHT - 1):
        driver.session.submit(b"filler")
        driver.take_requests()
    unsent = driver.session.submit(b"unsent")
    assert driver.take_requests() == []
    driver.agree(request, status=SESSION_EXPIRED)
    assert isinstance(driver.result(sent), OutcomeUnknown)
    (opening,) = driver.take_requests()
    driver.agree(opening)
    (again,) = driver.take_requests()
    assert driver.request(again).operations == (b"unsent",)
    driver.agree(again)
    assert driver.result(unsent) == b"did unsent"


@pytest.mark.rule("R45")
def test_an_ordered_read_of_a_lost_session_is_simply_read_again(driver):
    ticket = driver.session.submit(b"get", read_only=True)
    (request,) = driver.take_requests()
    assert driver.request(request).read_only
    driver.agree(request, status=SESSION_EXPIRED)
    (opening,) = driver.take_requests()
    driver.agree(opening)
    (again,) = driver.take_requests()
    assert driver.request(again).read_only
    driver.agree(again)
    assert driver.result(ticket) == b"did get"


def test_one_liar_cannot_end_a_session(driver, cluster):
    ticket = driver.session.submit(b"op")
    (request,) = driver.take_requests()
    driver.deliver(0, cluster.reply(0, cluster.leaf(request, status=SESSION_EXPIRED)))
    driver.agree(request)
    assert driver.result(ticket) == b"did op"


def test_every_replica_learns_of_a_session_when_it_opens_and_when_it_is_connected(fresh):
    fresh.session.submit(b"op")
    sent = fresh.take()
    assert [replica for replica, _ in sent] == [0, 1, 2, 3]
    ((_, opening), *_) = sent
    fresh.agree(opening)
    fresh.take()
    for replica in range(4):
        fresh.session.connected(replica)
        assert (replica, opening) in fresh.take()


def test_a_client_without_a_session_tells_nobody_of_one(driver):
    driver.session.submit(b"op")
    (request,) = driver.take_requests()
    driver.agree(request, status=SESSION_EXPIRED)
    driver.session.connected(2)
    assert driver.take() == []


def test_the_deadline_of_an_operation_ends_its_waiting(driver):
    early = driver.session.submit(b"early", deadline=driver.now + SECOND)
    late = driver.session.submit(b"late", deadline=driver.now + 2 * SECOND)
    (request,) = driver.take_requests()
    driver.poll(SECOND)
    assert isinstance(driver.result(early), DeadlineExceeded)
    assert driver.result(early).sent
    assert driver.result(late) is None
    driver.agree(request)
    assert driver.result(late) == b"did late"


def test_an_operation_that_was_late_before_it_was_sent_is_never_sent(fresh):
    ticket = fresh.session.submit(b"op", deadline=fresh.now + SECOND)
    (opening,) = fresh.take_requests()
    fresh.poll(SECOND)
    assert isinstance(fresh.result(ticket), DeadlineExceeded)
    assert not fresh.result(ticket).sent
    fresh.take()
    fresh.agree(opening)
    assert fresh.take() == []


@pytest.mark.rule("R16")
def test_the_outcome_of_an_abandoned_operation_is_still_acknowledged(driver):
    ticket = driver.session.submit(b"op")
    (request,) = driver.take_requests()
    driver.session.abandon(ticket)
    driver.agree(request)
    assert driver.result(ticket) is None
    driver.session.submit(b"next")
    (following,) = driver.take_requests()
    assert driver.request(following).acknowledged == driver.request(request).bundle


def test_an_abandoned_operation_that_waits_is_never_sent(fresh):
    ticket = fresh.session.submit(b"dropped")
    kept = fresh.session.submit(b"kept")
    (opening,) = fresh.take_requests()
    fresh.session.abandon(ticket)
    fresh.session.abandon(ticket)
    fresh.agree(opening)
    (request,) = fresh.take_requests()
    assert fresh.request(request).operations == (b"kept",)
    fresh.agree(request)
    assert fresh.result(kept) == b"did kept"


@pytest.mark.rule("R25")
def test_unfinished_operations_are_bounded_in_number(fresh, monkeypatch):
    monkeypatch.setattr("client.admission.MAX_OPERATIONS", 3)
    first = fresh.session.submit(b"1")
    fresh.session.read(b"2")
    fresh.session.status(0, fresh.now)
    for call in (fresh.session.submit, fresh.session.read):
        with pytest.raises(QueueFull):
            call(b"4")
    fresh.session.abandon(first)
    fresh.session.submit(b"4")
    with pytest.raises(QueueFull):
        fresh.session.submit(b"5")


@pytest.mark.rule("R25")
def test_unfinished_operations_are_bounded_in_bytes(driver, monkeypatch):
    monkeypatch.setattr("client.admission.MAX_BYTES", 10)
    driver.session.submit(b"1234567890")
    with pytest.raises(QueueFull):
        driver.session.submit(b"1")
    (request,) = driver.take_requests()
    driver.agree(request)
    driver.session.submit(b"1")


def test_an_operation_above_the_limit_is_refused_locally(driver):
    most = driver.cluster.config.parameters.max_operation_bytes
    with pytest.raises(LocalError, match="at most"):
        driver.session.submit(b"x" * (most + 1))
    with pytest.raises(LocalError, match="bytes, not str"):
        driver.session.submit("text")


def test_a_finished_client_wants_no_more_wake_ups(driver):
    assert driver.take() == []
    driver.session.submit(b"op", deadline=driver.now + 60 * SECOND)
    (request,) = driver.take_requests()
    assert driver.wake_at == driver.now + FIRST_RETRY_US
    driver.agree(request)
    driver.poll(60 * SECOND)
    assert driver.wake_at is None


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x90" * 100_000, b"\x93\x00\xc4\x00\xc4\x00"])
def test_junk_is_dropped_and_counted(driver, junk):
    driver.session.receive(0, junk)
    assert driver.session.dropped == {"malformed": 1}


def test_messages_that_are_not_for_clients_are_dropped(driver, cluster):
    read = cluster.seal(0, Read(cluster.client.public_key, 1, 0, (b"x",)))
    driver.session.receive(0, encode_packet(read))
    driver.session.receive(9, encode_packet(read))
    assert driver.session.dropped == {"not for clients": 1, "not from a replica": 1}
