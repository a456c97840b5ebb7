"""What a client puts into a bundle, and when it sends one (again) (R14-R16)."""

import pytest

from client.ordered import BUNDLES_IN_FLIGHT
from client.retry import FIRST_RETRY_US, LAST_RETRY_US
from pbft.config import Parameters
from pbft.messages import (
    CROWDED,
    OK,
    REFUSED,
    OperationResult,
)

SECOND = 1_000_000


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
