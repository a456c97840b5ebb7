"""Sessions, bundles, retransmission, windows (R14-R16, R45)."""

import pytest

from client.errors import DeadlineExceeded, LocalError, OutcomeUnknown, QueueFull
from client.numbering import MAX_NUMBER
from client.ordered import BUNDLES_IN_FLIGHT
from client.retry import FIRST_RETRY_US, LAST_RETRY_US
from pbft.codec import encode_packet
from pbft.config import Parameters
from pbft.messages import (
    CONFLICT,
    CROWDED,
    OK,
    OUT_OF_WINDOW,
    REFUSED,
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


def crowded(driver, *tickets):
    """Their common bundle comes back: the first has its result, the others found no room."""
    (request,) = driver.take_requests()
    results = (OperationResult(OK, b"done"),) + (OperationResult(CROWDED, b"no room"),) * (
        len(tickets) - 1
    )
    driver.agree(request, results)
    assert driver.result(tickets[0]) == b"done"


@pytest.mark.parametrize("read_only", [False, True])
def test_what_found_no_room_beside_others_is_sent_again_alone(driver, read_only):
    tickets = [driver.session.submit(b"%d" % n, read_only=read_only) for n in range(3)]
    crowded(driver, *tickets)
    requests = driver.take_requests()
    assert sorted(driver.request(each).operations for each in requests) == [(b"1",), (b"2",)]
    for request in requests:
        driver.agree(request)
    assert [driver.result(each) for each in tickets[1:]] == [b"did 1", b"did 2"]


def test_what_finds_no_room_beside_other_bundles_is_sent_again_too(driver):
    tickets = [driver.session.submit(b"%d" % n) for n in range(2)]
    crowded(driver, *tickets)
    (request,) = driver.take_requests()
    driver.agree(request, (OperationResult(CROWDED, b"no room"),))
    assert driver.result(tickets[1]) is None
    (again,) = driver.take_requests()
    assert driver.request(again).bundle == driver.request(request).bundle + 1
    driver.agree(again, (OperationResult(REFUSED, b"too much"),))
    assert str(driver.result(tickets[1])) == "too much"


def test_what_found_no_room_keeps_its_order(driver):
    tickets = [driver.session.submit(b"%d" % n) for n in range(4)]
    crowded(driver, *tickets)
    sent = [driver.request(each).operations for each in driver.take_requests()]
    assert sent == [(b"1",), (b"2",), (b"3",)]


def test_what_was_abandoned_meanwhile_is_not_sent_again(driver):
    tickets = [driver.session.submit(b"%d" % n) for n in range(2)]
    (request,) = driver.take_requests()
    driver.session.abandon(tickets[1])
    driver.agree(request, (OperationResult(OK, b""), OperationResult(CROWDED, b"no room")))
    assert driver.take_requests() == []


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


def test_operations_that_wait_share_one_signature(driver):
    tickets = [driver.session.submit(b"%d" % i) for i in range(10)]
    (request,) = driver.take_requests()
    assert driver.request(request).operations == tuple(b"%d" % i for i in range(10))
    driver.agree(request)
    assert [driver.result(ticket) for ticket in tickets] == [b"did %d" % i for i in range(10)]


def test_a_bundle_holds_only_reads_or_only_writes(driver):
    driver.session.submit(b"w")
    driver.session.submit(b"r", read_only=True)
    driver.session.submit(b"w")
    bodies = [driver.request(request) for request in driver.take_requests()]
    assert [(body.read_only, body.operations) for body in bodies] == [
        (False, (b"w", b"w")),
        (True, (b"r",)),
    ]


def test_bundles_are_bounded_in_operations_and_bytes(make_cluster, make_driver):
    parameters = Parameters(max_bundle_operations=3, max_batch_bytes=400)
    driver = make_driver(make_cluster(parameters=parameters)).opened()
    sizes = [1, 1, 1, 90, 90, 150, 1]
    for size in sizes:
        driver.session.submit(b"x" * size)
    bundles = [driver.request(request).operations for request in driver.take_requests()]
    assert [[len(each) for each in bundle] for bundle in bundles] == [[1, 1, 1], [90], [90], [150]]


@pytest.mark.rule("R15")
def test_a_bundle_is_sent_again_byte_for_byte(driver):
    driver.session.submit(b"op")
    ((replica, request),) = driver.take()
    assert replica == 0
    for _ in range(5):
        driver.session.submit(b"later")
        driver.poll(LAST_RETRY_US * 2)
        again = [envelope for _, envelope in driver.take() if driver.request(envelope).bundle == 2]
        assert len(again) >= 4
        assert all(envelope == request for envelope in again)


@pytest.mark.rule("R14")
def test_after_a_time_out_a_request_goes_to_all_with_growing_pauses(driver):
    driver.session.submit(b"op")
    ((replica, request),) = driver.take()
    assert replica == driver.session.view % 4
    pauses, last = [], driver.now
    for _ in range(7):
        driver.poll(driver.wake_at - driver.now - 1)
        assert driver.take() == []
        driver.poll(1)
        assert driver.take() == [(each, request) for each in range(4)]
        pauses.append(driver.now - last)
        last = driver.now
    assert pauses[0] == FIRST_RETRY_US
    assert all(
        min(2**i * FIRST_RETRY_US, LAST_RETRY_US) <= pause <= 1.25 * LAST_RETRY_US
        for i, pause in enumerate(pauses)
    )
    assert pauses[-1] >= LAST_RETRY_US


@pytest.mark.rule("R14")
def test_what_the_primary_missed_is_sent_when_it_is_connected(driver):
    driver.session.submit(b"op")
    ((_, request),) = driver.take()
    driver.session.connected(3)
    assert request not in driver.take_requests()
    driver.session.connected(0)
    assert request in driver.take_requests()


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


@pytest.mark.rule("R16")
def test_no_bundle_lies_outside_the_window(make_cluster, make_driver):
    window = 6
    driver = make_driver(make_cluster(parameters=Parameters(client_window=window))).opened()
    driver.session.submit(b"stuck")
    (stuck,) = driver.take_requests()
    assert driver.request(stuck).acknowledged == 1
    for bundle in range(3, 2 + window):
        driver.session.submit(b"op")
        (request,) = driver.take_requests()
        body = driver.request(request)
        assert (body.bundle, body.acknowledged) == (bundle, 1)
        driver.agree(request)
    waiting = driver.session.submit(b"op")
    assert driver.take_requests() == []
    driver.agree(stuck)
    (request,) = driver.take_requests()
    body = driver.request(request)
    assert (body.bundle, body.acknowledged) == (2 + window, 1 + window)
    driver.agree(request)
    assert driver.result(waiting) == b"did op"


def test_few_bundles_are_in_flight_at_once(driver):
    for _ in range(BUNDLES_IN_FLIGHT + 3):
        driver.session.submit(b"op")
        driver.poll()
    requests = driver.take_requests()
    assert len(requests) == BUNDLES_IN_FLIGHT
    driver.agree(requests[2])
    (request,) = driver.take_requests()
    assert len(driver.request(request).operations) == 3


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
