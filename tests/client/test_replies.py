"""When an outcome is accepted (R6, R13)."""

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from client.envelopes import HEADERS_PER_REPLICA, Envelopes
from client.errors import ApplicationFailed, Refused
from client.replies import ReplyCollector
from crypto.merkle import MerkleTree
from crypto.signing import Ed25519Verifier
from pbft.codec import reply_leaf, request_digest
from pbft.messages import FAILED, REFUSED, BatchReplies, Envelope, OperationResult, Reply, Request

WRONG = (OperationResult(0, b"wrong"),)


def sent(driver, operation=b"op"):
    """Submit `operation`: its ticket and its request."""
    ticket = driver.session.submit(operation)
    (request,) = driver.take_requests()
    return ticket, request


@pytest.mark.rule("R13")
def test_w_equal_replies_of_distinct_replicas_are_accepted(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    driver.deliver(2, cluster.reply(2, leaf))
    assert driver.result(ticket) is None
    driver.deliver(0, cluster.reply(0, leaf))
    assert driver.result(ticket) == b"did op"


@pytest.mark.rule("R13")
def test_roots_views_and_sequence_numbers_need_not_match(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    driver.deliver(2, cluster.reply(2, leaf, view=3, seq=9))
    driver.deliver(3, cluster.reply(3, leaf, view=1, seq=4, beside=(b"x", b"y", b"z")))
    assert driver.result(ticket) == b"did op"


@pytest.mark.rule("R6")
def test_repeated_replies_of_one_replica_count_once(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    for view in range(5):
        driver.deliver(2, cluster.reply(2, leaf, view=view))
    assert driver.result(ticket) is None


@pytest.mark.rule("R6")
def test_one_replica_cannot_speak_for_another(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request, WRONG)
    driver.deliver(2, cluster.reply(2, leaf))
    driver.deliver(2, cluster.reply(3, leaf, key_of=2))
    driver.deliver(3, cluster.reply(2, leaf))
    assert driver.result(ticket) is None


@pytest.mark.rule("R6")
def test_a_header_that_names_another_replica_than_its_signer_is_refused(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    driver.deliver(2, cluster.reply(3, leaf, key_of=2))
    driver.deliver(1, cluster.reply(1, leaf))
    assert driver.result(ticket) is None


@pytest.mark.rule("R13")
def test_replies_with_bad_signatures_are_not_counted(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    for replica in range(4):
        driver.deliver(replica, cluster.reply(replica, leaf, key_of=(replica + 1) % 4))
    assert driver.result(ticket) is None
    driver.deliver(1, cluster.reply(1, leaf))
    driver.deliver(3, cluster.reply(3, leaf))
    assert driver.result(ticket) == b"did op"


@pytest.mark.rule("R13")
def test_a_path_of_another_leaf_is_refused(driver, cluster):
    ticket, request = sent(driver)
    true, false = cluster.leaf(request), cluster.leaf(request, WRONG)
    for replica in range(4):
        honest = cluster.reply(replica, true)
        driver.deliver(replica, Reply(honest.header, honest.index, honest.path, false))
    assert driver.result(ticket) is None


@pytest.mark.rule("R13")
@pytest.mark.parametrize("change", [{"path": ()}, {"index": 0}, {"index": 4095}])
def test_a_broken_path_is_refused(driver, cluster, change):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    for replica in range(4):
        driver.deliver(replica, replace(cluster.reply(replica, leaf), **change))
    assert driver.result(ticket) is None


@pytest.mark.rule("R13")
def test_a_reply_bound_to_another_request_is_never_accepted(driver, cluster):
    ticket, request = sent(driver)
    leaf = replace(cluster.leaf(request, WRONG), request=b"\x01" * 32)
    for replica in range(4):
        driver.deliver(replica, cluster.reply(replica, leaf))
    assert driver.result(ticket) is None


def test_a_reply_with_too_few_results_is_never_accepted(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request, ())
    for replica in range(4):
        driver.deliver(replica, cluster.reply(replica, leaf))
    assert driver.result(ticket) is None


def test_replies_to_another_client_are_dropped(driver, cluster):
    ticket, request = sent(driver)
    leaf = replace(cluster.leaf(request), client=b"\x05" * 32)
    for replica in range(4):
        driver.deliver(replica, cluster.reply(replica, leaf))
    assert driver.result(ticket) is None
    assert driver.session.dropped["reply to another client"] == 4


def test_refusals_and_failures_of_the_application_become_errors(driver):
    tickets = [driver.session.submit(operation) for operation in (b"1", b"2", b"3")]
    (request,) = driver.take_requests()
    refused, failed = OperationResult(REFUSED, "zu groß".encode()), OperationResult(FAILED, b"bug")
    driver.agree(request, (refused, OperationResult(0, b"fine"), failed))
    first, second, third = (driver.result(ticket) for ticket in tickets)
    assert isinstance(first, Refused)
    assert str(first) == "zu groß"
    assert second == b"fine"
    assert isinstance(third, ApplicationFailed)


@pytest.mark.rule("R13")
@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(4, 8))
def test_nothing_that_f_liars_say_is_ever_accepted(make_cluster, make_driver, data, n):
    """Any order of honest, lying, forged and repeated replies ends in the honest result, once w
    correct replicas have answered, and in nothing before."""
    cluster = make_cluster(n)
    driver = make_driver(cluster).opened()
    ticket, request = sent(driver)
    true, false = cluster.leaf(request), cluster.leaf(request, WRONG)
    liars = data.draw(st.permutations(range(n)))[: cluster.quorum.f]
    forged = replace(cluster.leaf(request, WRONG), request=b"\x02" * 32)
    honest: dict[int, None] = {}
    for replica in data.draw(st.lists(st.integers(0, n - 1), max_size=4 * n)):
        if replica not in liars:
            honest[replica] = None
            driver.deliver(replica, cluster.reply(replica, true, view=len(honest)))
        else:
            leaf = data.draw(st.sampled_from([true, false, forged]))
            name = data.draw(st.integers(0, n - 1))
            driver.deliver(replica, cluster.reply(name, leaf, key_of=replica))
        if driver.result(ticket) is not None:
            assert driver.result(ticket) == b"did op"
            assert honest
    if len(honest) >= cluster.quorum.w:
        assert driver.result(ticket) == b"did op"


def test_signatures_are_checked_late_and_once_per_header(make_cluster, make_driver, monkeypatch):
    cluster = make_cluster()
    driver = make_driver(cluster).opened()
    checks = []
    envelopes = driver.session._shared.envelopes
    check = envelopes.signed_by
    monkeypatch.setattr(
        envelopes, "signed_by", lambda *args: (checks.append(args), check(*args))[1]
    )
    ticket, request = sent(driver)
    true, false = cluster.leaf(request), cluster.leaf(request, WRONG)
    driver.deliver(0, cluster.reply(0, false))
    driver.deliver(1, cluster.reply(1, true))
    assert not checks
    driver.deliver(2, cluster.reply(2, true))
    assert driver.result(ticket) == b"did op"
    # Two for the accepted leaf, one for the reply that contradicts it.
    assert [replica for replica, _ in checks].count(0) == 1
    assert len(checks) == 3


def test_one_header_for_several_bundles_is_verified_once(driver, cluster, monkeypatch):
    first, one = sent(driver, b"1")
    second, two = sent(driver, b"2")
    leaves = [cluster.leaf(request) for request in (one, two)]
    encoded = tuple(reply_leaf(leaf) for leaf in leaves)
    checks = []
    envelopes = driver.session._shared.envelopes
    check = envelopes.signed_by
    monkeypatch.setattr(
        envelopes, "signed_by", lambda *args: (checks.append(args), check(*args))[1]
    )
    for replica in (1, 3):
        tree = MerkleTree(encoded)
        header = cluster.seal(replica, BatchReplies(replica, 0, 1, tree.root))
        for index, leaf in enumerate(leaves):
            driver.deliver(replica, Reply(header, index, tree.path(index), leaf))
    assert (driver.result(first), driver.result(second)) == (b"did 1", b"did 2")
    assert len(checks) == 2


@pytest.mark.rule("R25")
def test_headers_are_remembered_up_to_a_bound(driver, cluster):
    envelopes = driver.session._shared.envelopes
    for seq in range(HEADERS_PER_REPLICA + 5):
        header = cluster.seal(1, BatchReplies(1, 0, seq, b"\0" * 32))
        assert envelopes.header(1, header) is not None
    assert len(envelopes._headers[1]) == HEADERS_PER_REPLICA


@pytest.mark.rule("R25")
def test_a_header_that_is_no_header_proves_nothing(driver, cluster):
    ticket, request = sent(driver)
    leaf = cluster.leaf(request)
    for replica in (0, 1):
        honest = cluster.reply(replica, leaf)
        driver.deliver(replica, replace(honest, header=Envelope(b"junk", b"\0" * 64)))
    for replica in (2, 3):
        honest = cluster.reply(replica, leaf)
        driver.deliver(replica, replace(honest, header=request))
    assert driver.result(ticket) is None


@pytest.mark.rule("R25")
def test_leaves_whose_replies_all_turned_out_forged_are_forgotten(cluster):
    envelopes = Envelopes(cluster.config, cluster.client, Ed25519Verifier())
    request = envelopes.seal(Request(envelopes.client, 1, 1, 0, False, (b"op",)))
    collector = ReplyCollector(envelopes, request_digest(request), 1, cluster.quorum.w)
    for i in range(20):
        leaf = cluster.leaf(request, (OperationResult(0, b"%d" % i),))
        for replica in (0, 1):
            assert collector.add(replica, cluster.reply(replica, leaf, key_of=3)) is None
    assert collector._candidates == {}
