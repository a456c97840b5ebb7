"""Fast reads and when they are ordered instead (R20); status queries."""

import pytest
from hypothesis import given, settings, strategies as st

from client.errors import DeadlineExceeded, LocalError, Refused
from client.reads import FAST_READ_TIMEOUT_US
from pbft.codec import decode_body, encode_packet
from pbft.messages import (
    CROWDED,
    REFUSED,
    OperationResult,
    Read,
    Request,
    StatusQuery,
    StatusReport,
)

STALE = (OperationResult(0, b"stale"),)


def asked(driver, *operations):
    """Ask for `operations`: their tickets and the READ."""
    tickets = [driver.session.read(operation) for operation in operations or (b"get",)]
    sent = driver.take()
    assert [replica for replica, _ in sent] == list(range(driver.cluster.quorum.n))
    assert len({envelope for _, envelope in sent}) == 1
    read = sent[0][1]
    assert isinstance(decode_body(read.body), Read)
    return tickets, read


def answer(driver, replica, read, *args, **kwargs):
    driver.session.receive(replica, driver.cluster.read_reply(replica, read, *args, **kwargs))
    driver.poll()


def ordered_instead(driver):
    """The operations of the ordered reads sent meanwhile."""
    bodies = [decode_body(envelope.body) for _, envelope in driver.take()]
    requests = [body for body in bodies if isinstance(body, Request)]
    assert all(body.read_only for body in requests)
    return [body.operations for body in requests]


@pytest.mark.rule("R20")
def test_q_equal_answers_are_needed(driver):
    (ticket,), read = asked(driver)
    answer(driver, 0, read)
    answer(driver, 3, read)
    assert driver.result(ticket) is None
    answer(driver, 1, read)
    assert driver.result(ticket) == b"did get"


@pytest.mark.rule("R6")
def test_repeated_and_borrowed_answers_do_not_count(driver):
    (ticket,), read = asked(driver)
    for _ in range(4):
        answer(driver, 0, read)
    answer(driver, 1, read, key_of=0)
    driver.session.receive(0, driver.cluster.read_reply(2, read))
    driver.session.receive(0, driver.cluster.read_reply(0, read))
    answer(driver, 3, read)
    assert driver.result(ticket) is None
    assert driver.session.dropped["repeated answer"] == 4
    assert driver.session.dropped["bad signature"] == 1
    assert driver.session.dropped["in another replica's name"] == 1


@pytest.mark.rule("R20")
def test_a_read_is_ordered_when_too_many_replicas_refuse(driver):
    (ticket,), read = asked(driver)
    answer(driver, 0, read, refused=True)
    assert ordered_instead(driver) == []
    answer(driver, 1, read, refused=True)
    (request,) = driver.take_requests()
    assert driver.request(request).read_only
    driver.agree(request)
    assert driver.result(ticket) == b"did get"


@pytest.mark.rule("R20")
def test_results_of_replicas_that_refuse_are_not_counted(driver):
    (ticket,), read = asked(driver)
    results = (OperationResult(0, b"did get"),)
    answer(driver, 0, read, results, refused=True)
    answer(driver, 1, read, results)
    answer(driver, 2, read, results)
    assert driver.result(ticket) is None
    answer(driver, 3, read, results)
    assert driver.result(ticket) == b"did get"


@pytest.mark.rule("R20")
def test_a_read_is_ordered_when_no_result_can_reach_q_any_more(driver):
    (ticket,), read = asked(driver)
    answer(driver, 0, read, STALE)
    answer(driver, 1, read)
    assert ordered_instead(driver) == []
    answer(driver, 2, read, STALE)
    assert driver.result(ticket) is None
    assert ordered_instead(driver) == []
    answer(driver, 3, read)
    assert ordered_instead(driver) == [(b"get",)]


@pytest.mark.rule("R20")
def test_a_read_is_ordered_after_a_short_time(driver):
    (ticket,), read = asked(driver)
    answer(driver, 0, read)
    answer(driver, 1, read)
    driver.poll(FAST_READ_TIMEOUT_US - 1)
    assert ordered_instead(driver) == []
    driver.poll(1)
    (request,) = driver.take_requests()
    answer(driver, 2, read)
    assert driver.result(ticket) is None
    driver.agree(request)
    assert driver.result(ticket) == b"did get"


@pytest.mark.rule("R20")
def test_queries_that_share_a_read_are_decided_one_by_one(driver):
    tickets, read = asked(driver, b"a", b"b")
    assert decode_body(read.body).operations == (b"a", b"b")
    same = OperationResult(0, b"same")
    for replica in range(4):
        mine = OperationResult(0, b"%d" % (replica // 2))
        answer(driver, replica, read, (mine, same))
    assert driver.result(tickets[0]) is None
    assert driver.result(tickets[1]) == b"same"
    assert ordered_instead(driver) == [(b"a",)]


def test_an_abandoned_read_is_not_ordered(driver):
    (ticket,), _ = asked(driver)
    driver.session.abandon(ticket)
    driver.poll(FAST_READ_TIMEOUT_US)
    assert driver.take() == []


def test_answers_with_too_many_or_too_few_results_are_dropped(driver):
    (ticket,), read = asked(driver)
    for replica in range(4):
        answer(driver, replica, read, ())
        answer(driver, replica, read, STALE * 2)
    assert driver.result(ticket) is None
    assert driver.session.dropped["wrong number of results"] == 8


def test_an_answer_to_another_read_is_dropped(driver):
    (first,), old = asked(driver, b"first")
    for replica in range(3):
        answer(driver, replica, old)
    assert driver.result(first) == b"did first"
    (second,), _ = asked(driver, b"second")
    for replica in range(4):
        answer(driver, replica, old)
    assert driver.result(second) is None
    assert driver.session.dropped["answer to no read"] == 4


def test_a_refusal_of_the_application_is_a_result_like_any_other(driver):
    (ticket,), read = asked(driver)
    for replica in range(3):
        answer(driver, replica, read, (OperationResult(REFUSED, b"compacted"),))
    assert isinstance(driver.result(ticket), Refused)


def test_a_query_that_found_no_room_beside_others_is_asked_again_alone(driver):
    (first, second), read = asked(driver, b"a", b"b")
    results = (OperationResult(0, b"large"), OperationResult(CROWDED, b"no room"))
    for replica in range(driver.cluster.quorum.q):
        answer(driver, replica, read, results)
    assert driver.result(first) == b"large"
    assert driver.result(second) is None
    again = {envelope for _, envelope in driver.take()}
    assert [decode_body(envelope.body).operations for envelope in again] == [(b"b",)]


def test_a_read_needs_no_session(make_driver, cluster):
    driver = make_driver(cluster)
    (ticket,), read = asked(driver)
    for replica in range(3):
        answer(driver, replica, read)
    assert driver.result(ticket) == b"did get"
    assert driver.take() == []


def test_a_replica_that_connects_late_is_asked_too(driver):
    _, read = asked(driver)
    answer(driver, 0, read)
    driver.session.connected(0)
    driver.session.connected(2)
    assert [replica for replica, sent in driver.take() if sent == read] == [2]


@pytest.mark.rule("R20")
@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(4, 8))
def test_a_fast_result_always_has_q_distinct_honest_looking_answers(
    make_cluster, make_driver, data, n
):
    driver = make_driver(make_cluster(n))
    (ticket,), read = asked(driver)
    said: dict[int, object] = {}
    for replica in data.draw(st.lists(st.integers(0, n - 1), max_size=3 * n)):
        kind = data.draw(st.sampled_from(["new", "new", "new", "stale", "refused"]))
        said.setdefault(replica, kind)
        results = STALE if kind == "stale" else (OperationResult(0, b"new"),)
        answer(driver, replica, read, results, refused=kind == "refused")
        votes = list(said.values())
        reached = {
            value for value in ("new", "stale") if votes.count(value) >= driver.cluster.quorum.q
        }
        result = driver.result(ticket)
        assert result is None or result.decode() in reached
        if not driver.sent and result is None:
            assert not reached


def report(driver, replica, query, text=b'{"view": 3}', **kwargs):
    nonce = decode_body(query.body).nonce
    body = StatusReport(replica, driver.cluster.client.public_key, nonce, text)
    return encode_packet(driver.cluster.seal(replica, body, **kwargs))


def test_a_status_query_goes_to_one_replica_and_is_answered_by_it_alone(driver):
    ticket = driver.session.status(2, driver.now)
    ((replica, query),) = driver.take()
    assert replica == 2
    assert isinstance(decode_body(query.body), StatusQuery)
    for name, sender, key in [(1, 1, 1), (2, 1, 2), (2, 2, 1)]:
        driver.session.receive(sender, report(driver, name, query, key_of=key))
        driver.poll()
        assert driver.result(ticket) is None
    driver.session.receive(2, report(driver, 2, query))
    driver.poll()
    assert driver.result(ticket) == b'{"view": 3}'


def test_a_status_query_is_sent_again_until_its_deadline(driver):
    ticket = driver.session.status(2, driver.now, deadline=driver.now + 5_000_000)
    ((_, query),) = driver.take()
    driver.poll(driver.wake_at - driver.now)
    assert driver.take() == [(2, query)]
    driver.session.connected(2)
    driver.session.connected(1)
    assert [replica for replica, sent in driver.take() if sent == query] == [2]
    driver.poll(5_000_000)
    assert isinstance(driver.result(ticket), DeadlineExceeded)
    driver.take()
    assert driver.wake_at is None


def test_there_is_no_status_of_a_replica_that_does_not_exist(driver):
    with pytest.raises(LocalError):
        driver.session.status(4, driver.now)
