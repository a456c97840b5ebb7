"""Reads that need not meet the writes of others: read-your-writes and monotonic by a token."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from client.errors import LocalError
from client.read_rules import Agreed, Undecided, meets_every_write, meets_what_is_known
from client.reads import FAST_READ_TIMEOUT_US
from pbft.codec import decode_body
from pbft.core.quorum import Quorum
from pbft.messages import OperationResult, Read, Request

NEW, OLD = (OperationResult(0, b"new"),), (OperationResult(0, b"old"),)


def asked(driver, at_least, operation=b"get"):
    ticket = driver.session.read(operation, at_least=at_least)
    sent = driver.take()
    assert [replica for replica, _ in sent] == list(range(driver.cluster.quorum.n))
    read = sent[0][1]
    assert decode_body(read.body).at_least == at_least
    return ticket, read


def answer(driver, replica, read, seq, results=NEW, **kwargs):
    raw = driver.cluster.read_reply(replica, read, results, seq=seq, **kwargs)
    driver.session.receive(replica, raw)
    driver.poll()


def ordered(driver):
    """The ordered reads sent meanwhile."""
    bodies = [decode_body(envelope.body) for _, envelope in driver.take()]
    return [body.operations for body in bodies if isinstance(body, Request)]


def test_an_ordered_outcome_moves_the_token_to_where_it_was_executed(driver):
    before = driver.session.token
    ticket = driver.session.submit(b"put")
    (request,) = driver.take_requests()
    leaf = driver.cluster.leaf(request, seq=before + 7)
    liar = driver.cluster.leaf(request, seq=10**6)
    driver.deliver(3, driver.cluster.reply(3, liar, seq=10**6))
    driver.deliver(0, driver.cluster.reply(0, leaf, seq=before + 7))
    assert driver.result(ticket) is None
    driver.deliver(1, driver.cluster.reply(1, leaf, seq=before + 9))
    assert driver.result(ticket) == b"did put"
    assert driver.session.token == before + 7


def test_a_weak_quorum_of_states_that_are_new_enough_is_enough(driver):
    ticket, read = asked(driver, 10)
    answer(driver, 0, read, 10)
    assert driver.result(ticket) is None
    answer(driver, 1, read, 10)
    assert driver.result(ticket) == b"new"
    assert driver.session.token == 10


def test_states_after_different_numbers_may_agree(driver):
    ticket, read = asked(driver, 10)
    answer(driver, 0, read, 12)
    answer(driver, 1, read, 11)
    assert driver.result(ticket) is None, "who knows whether 12 was reached by a correct replica?"
    answer(driver, 2, read, 13)
    assert driver.result(ticket) == b"new"
    assert driver.session.token == 12


def test_a_liar_cannot_push_the_token_beyond_what_a_correct_replica_has_reached(driver):
    ticket, read = asked(driver, 10)
    answer(driver, 3, read, 2**63 - 1)
    answer(driver, 0, read, 10)
    assert driver.result(ticket) is None
    answer(driver, 1, read, 11)
    assert driver.result(ticket) == b"new"
    assert driver.session.token == 11


def test_a_stale_state_does_not_count_whatever_the_liar_says_of_it(driver):
    ticket, read = asked(driver, 10)
    answer(driver, 3, read, 9, OLD)
    answer(driver, 0, read, 9, OLD)
    assert driver.result(ticket) is None
    answer(driver, 1, read, 10)
    answer(driver, 2, read, 10)
    assert driver.result(ticket) == b"new"


def test_a_liar_alone_decides_nothing(driver):
    ticket, read = asked(driver, 10)
    answer(driver, 3, read, 10, OLD)
    answer(driver, 0, read, 10)
    answer(driver, 1, read, 11)
    answer(driver, 2, read, 12)
    assert driver.result(ticket) == b"new"


def test_where_too_many_refuse_the_read_is_ordered_and_the_token_moves_on(driver):
    ticket, read = asked(driver, 10)
    for replica in range(3):
        answer(driver, replica, read, 0, (), refused=True)
    (request,) = driver.take_requests()
    assert driver.request(request).read_only
    leaf = driver.cluster.leaf(request, seq=15)
    for replica in (0, 1):
        driver.deliver(replica, driver.cluster.reply(replica, leaf))
    assert driver.result(ticket) == b"did get"
    assert driver.session.token == 15


def test_where_all_have_answered_differently_or_not_in_time_it_is_ordered(driver):
    _, read = asked(driver, 10, b"differ")
    for replica in range(4):
        answer(driver, replica, read, 10 + replica, (OperationResult(0, b"%d" % replica),))
    assert ordered(driver) == [(b"differ",)]
    asked(driver, 10, b"late")
    driver.poll(FAST_READ_TIMEOUT_US)
    assert (b"late",) in ordered(driver)


def test_a_client_that_restarts_goes_on_from_its_token(driver, make_driver):
    ticket, read = asked(driver, 10)
    answer(driver, 0, read, 14)
    answer(driver, 1, read, 14)
    assert driver.result(ticket) == b"new"
    token = driver.session.token
    again = make_driver(driver.cluster, seed=2)
    assert again.session.token == 0
    ticket, read = asked(again, token)
    answer(again, 3, read, 13, OLD)
    answer(again, 1, read, 14)
    assert again.result(ticket) is None
    answer(again, 0, read, 15)
    answer(again, 2, read, 16)
    assert again.result(ticket) == b"new"
    assert again.session.token >= token


def test_reads_with_and_without_a_token_do_not_share_a_message(driver):
    driver.session.read(b"a")
    driver.session.read(b"b", at_least=3)
    driver.session.read(b"c", at_least=5)
    reads = {decode_body(envelope.body) for _, envelope in driver.take()}
    assert {(read.at_least, read.operations) for read in reads if isinstance(read, Read)} == {
        (0, (b"a",)),
        (5, (b"b", b"c")),
    }


def test_a_linearizable_read_moves_the_token_no_further_than_a_correct_replica_is(driver):
    before = driver.session.token
    ticket = driver.session.read(b"get")
    read = driver.take()[0][1]
    answer(driver, 3, read, 2**63 - 1)
    answer(driver, 0, read, before + 2)
    answer(driver, 1, read, before + 4)
    assert driver.result(ticket) == b"new"
    assert driver.session.token == before + 4


@pytest.mark.parametrize("at_least", [-1, 2**63])
def test_a_token_is_a_sequence_number(driver, at_least):
    with pytest.raises(LocalError):
        driver.session.read(b"get", at_least=at_least)


@settings(max_examples=300, deadline=None)
@given(n=st.integers(4, 8), token=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_whatever_liars_say_what_is_agreed_on_is_what_a_correct_replica_has(n, token, seed):
    """The state's results change with its sequence number, and now and then come back."""
    chance, quorum = random.Random(seed), Quorum(n)
    history = [OperationResult(0, b"%d" % chance.randrange(3)) for _ in range(12)]
    liars = chance.sample(range(n), quorum.f)
    reached = {r: chance.randrange(9) for r in range(n) if r not in liars}
    for rule, least in [(meets_what_is_known, token), (meets_every_write, 0)]:
        answers, correct = [], []
        for count, replica in enumerate(chance.sample(range(n), n), 1):
            if replica in liars:
                claim = chance.choice([0, token, 5, 8, 11, 2**63 - 1])
                answers.append((OperationResult(0, b"%d" % chance.randrange(3)), claim))
            elif reached[replica] >= least:
                answers.append((history[reached[replica]], reached[replica]))
                correct.append(reached[replica])
            bound = (quorum, token) if rule is meets_what_is_known else (quorum,)
            decision = rule(*bound, answers, n - count)
            if isinstance(decision, Agreed):
                assert decision.seq <= max(reached.values())
                read_from = [seq for seq in correct if history[seq] == decision.result]
                assert any(least <= seq <= decision.seq for seq in read_from)
                break
            if decision is Undecided.HOPELESS:
                break
        else:
            raise AssertionError("with all answers it is one or the other")
