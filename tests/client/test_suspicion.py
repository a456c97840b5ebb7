"""Contradicting signed replies, and which view is believed in."""

import pytest
from hypothesis import given, strategies as st

from client.replies import LEAVES_PER_REPLICA
from client.suspicion import MAX_REMEMBERED_BYTES, REMEMBERED_OUTCOMES, SUSPICIONS_PER_REPLICA
from client.views import ViewEstimate
from pbft.core.quorum import Quorum
from pbft.messages import CONFLICT, SESSION_EXPIRED, OperationResult

WRONG = (OperationResult(0, b"wrong"),)


def sent(driver, operation=b"op"):
    driver.session.submit(operation)
    (request,) = driver.take_requests()
    return request


@pytest.mark.rule("R46")
@pytest.mark.parametrize("late", [False, True])
def test_a_signed_contradiction_is_kept_with_what_was_accepted(driver, cluster, late):
    request = sent(driver)
    lie = cluster.reply(3, cluster.leaf(request, WRONG))
    if not late:
        driver.deliver(3, lie)
    driver.agree(request)
    if late:
        driver.deliver(3, lie)
    driver.deliver(3, lie)
    (suspicion,) = driver.session.suspicions
    assert (suspicion.replica, suspicion.reply) == (3, lie)
    assert [reply.leaf for reply in suspicion.accepted] == [cluster.leaf(request)] * 2


@pytest.mark.rule("R46")
def test_another_bundle_under_the_same_number_is_a_contradiction(driver, cluster):
    request = sent(driver)
    driver.agree(request)
    driver.deliver(3, cluster.reply(3, cluster.leaf(request, status=CONFLICT)))
    assert [suspicion.replica for suspicion in driver.session.suspicions] == [3]


@pytest.mark.rule("R46")
def test_what_may_become_true_later_is_no_contradiction(driver, cluster):
    request = sent(driver)
    driver.deliver(3, cluster.reply(3, cluster.leaf(request, status=SESSION_EXPIRED)))
    driver.agree(request)
    assert driver.session.suspicions == ()


@pytest.mark.rule("R46")
def test_only_what_a_replica_has_signed_makes_it_suspicious(driver, cluster):
    request = sent(driver)
    driver.deliver(3, cluster.reply(3, cluster.leaf(request, WRONG), key_of=2))
    driver.agree(request)
    driver.deliver(3, cluster.reply(3, cluster.leaf(request, WRONG), key_of=2))
    driver.deliver(3, cluster.reply(3, cluster.leaf(request)))
    assert driver.session.suspicions == ()


@pytest.mark.rule("R25")
def test_suspicions_are_bounded_and_one_liar_does_not_hide_another(driver, cluster):
    for i in range(SUSPICIONS_PER_REPLICA + 5):
        request = sent(driver, b"%d" % i)
        driver.agree(request, replicas=(0, 1))
        driver.deliver(3, cluster.reply(3, cluster.leaf(request, WRONG)))
    driver.deliver(2, cluster.reply(2, cluster.leaf(request, WRONG)))
    names = [suspicion.replica for suspicion in driver.session.suspicions]
    assert names == [2] + [3] * SUSPICIONS_PER_REPLICA


@pytest.mark.rule("R25")
def test_one_replica_has_few_leaves_remembered_per_bundle(driver, cluster):
    request = sent(driver)
    for i in range(LEAVES_PER_REPLICA + 20):
        lie = (OperationResult(0, b"%d" % i),)
        driver.deliver(3, cluster.reply(3, cluster.leaf(request, lie)))
    driver.agree(request)
    assert len(driver.session.suspicions) == LEAVES_PER_REPLICA


def test_requests_follow_the_primary_that_replies_name(driver):
    request = sent(driver)
    driver.agree(request, view=6)
    assert driver.session.view == 6
    driver.session.submit(b"next")
    assert [replica for replica, _ in driver.take()] == [2]


def test_one_liar_cannot_move_the_view(driver, cluster):
    for _ in range(3):
        request = sent(driver)
        leaf = cluster.leaf(request)
        driver.deliver(3, cluster.reply(3, leaf, view=2**62))
        driver.deliver(0, cluster.reply(0, leaf, view=1))
        assert driver.session.view == 1


@given(data=st.data(), n=st.integers(4, 13))
def test_the_view_is_never_above_what_a_correct_replica_has_claimed(data, n):
    quorum = Quorum(n)
    estimate = ViewEstimate(quorum)
    liars = data.draw(st.permutations(range(n)))[: quorum.f]
    highest = 0
    claims = st.tuples(st.integers(0, n - 1), st.integers(0, 2**63 - 1))
    for replica, view in data.draw(st.lists(claims, max_size=40)):
        before = estimate.view
        if replica not in liars:
            highest = max(highest, view)
        estimate.claim(replica, view)
        assert before <= estimate.view <= highest


@pytest.mark.rule("R25")
def test_only_the_latest_outcomes_are_held_against_late_replies(driver, cluster):
    requests = []
    for i in range(REMEMBERED_OUTCOMES + 1):
        requests.append(sent(driver, b"%d" % i))
        driver.agree(requests[-1], replicas=(0, 1))
    for request in (requests[0], requests[1]):
        driver.deliver(3, cluster.reply(3, cluster.leaf(request, WRONG)))
    (suspicion,) = driver.session.suspicions
    assert suspicion.reply.leaf == cluster.leaf(requests[1], WRONG)


@pytest.mark.rule("R25")
def test_large_replies_are_not_kept_as_suspicions(driver, cluster):
    large = (OperationResult(0, b"x" * MAX_REMEMBERED_BYTES),)
    for accepted, said in [(large, WRONG), (None, large)]:
        request = sent(driver)
        driver.agree(request, accepted, replicas=(0, 1))
        driver.deliver(3, cluster.reply(3, cluster.leaf(request, said)))
    assert driver.session.suspicions == ()
