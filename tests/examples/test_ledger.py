"""The ledger, over a plain state in memory."""

import json
from random import Random
from typing import Any

import pytest

from examples.ledger import MOST, Ledger
from pbft import Refused


@pytest.fixture
def machine() -> Ledger:
    return Ledger()


def opening(account: str) -> bytes:
    return json.dumps({"type": "open", "account": account}).encode()


def payment(source: str, target: str, amount: int) -> bytes:
    operation = {"type": "pay", "source": source, "target": target, "amount": amount}
    return json.dumps(operation).encode()


@pytest.fixture
def bank(replica: Any) -> Any:
    """Alice runs the bank and has an account, Bob has one; each holds 100."""
    for account, owner in (("bank", "alice"), ("alice", "alice"), ("bob", "bob")):
        assert replica.apply(opening(account), owner) == b"0"
    assert replica.apply(payment("bank", "alice", 100)) == b"-100"
    assert replica.apply(payment("bank", "bob", 100)) == b"-200"
    return replica


def balances(replica: Any) -> dict[str, int]:
    found: dict[str, int] = json.loads(replica.query(b"balances"))
    return found


def test_a_payment_moves_money(bank: Any) -> None:
    assert bank.apply(payment("alice", "bob", 30)) == b"70"
    assert balances(bank) == {"alice": 70, "bank": -200, "bob": 130}


def test_an_account_may_be_emptied_but_not_overdrawn(bank: Any) -> None:
    assert bank.apply(payment("alice", "bob", 100)) == b"0"
    with pytest.raises(Refused, match="alice has only 0"):
        bank.apply(payment("alice", "bob", 1))
    assert balances(bank) == {"alice": 0, "bank": -200, "bob": 200}


def test_only_its_owner_pays_from_an_account(bank: Any) -> None:
    with pytest.raises(Refused, match="belongs to somebody else"):
        bank.apply(payment("alice", "bob", 1), "bob")
    with pytest.raises(Refused, match="belongs to somebody else"):
        bank.apply(payment("bank", "bob", 1), "bob")


def test_an_account_is_opened_once(bank: Any) -> None:
    with pytest.raises(Refused, match="already"):
        bank.apply(opening("alice"), "bob")


def test_an_account_cannot_pay_itself(bank: Any) -> None:
    with pytest.raises(Refused, match="itself"):
        bank.apply(payment("alice", "alice", 1))


@pytest.mark.parametrize(("source", "target"), [("nobody", "bob"), ("alice", "nobody")])
def test_there_must_be_both_accounts(bank: Any, source: str, target: str) -> None:
    with pytest.raises(Refused, match="no account nobody"):
        bank.apply(payment(source, target, 1))


def test_the_bank_issues_no_more_than_the_ledger_can_count(bank: Any) -> None:
    for _ in range(MOST // 2**53 - 1):
        bank.apply(payment("bank", "bob", 2**53))
    with pytest.raises(Refused, match="the account bank has only -"):
        bank.apply(payment("bank", "bob", 2**53))


@pytest.mark.parametrize(
    "operation",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        opening("Alice"),
        opening("alice\n"),
        opening("a" * 65),
        payment("alice", "bob", 0),
        payment("alice", "bob", -1),
        payment("alice", "bob", 2**53 + 1),
        opening("carol")[:-1] + b', "more": ' + b"[" * 100_000,
    ],
)
def test_nonsense_is_refused_alike_and_changes_nothing(bank: Any, operation: bytes) -> None:
    before = dict(bank.state.entries)
    with pytest.raises(Refused, match="not an operation of the ledger"):
        bank.apply(operation)
    assert bank.state.entries == before


def test_there_is_one_query(bank: Any) -> None:
    with pytest.raises(Refused, match="balances"):
        bank.query(opening("carol"))


def test_whatever_is_asked_the_books_balance(bank: Any) -> None:
    random = Random(7)
    outcomes = {"paid": 0, "refused": 0}
    for _ in range(500):
        source, target = random.sample(("bank", "alice", "bob"), 2)
        amount = random.randint(1, 60)
        try:
            bank.apply(payment(source, target, amount), random.choice(("alice", "bob")))
            outcomes["paid"] += 1
        except Refused:
            outcomes["refused"] += 1
        held = balances(bank)
        assert sum(held.values()) == 0
        assert min(held["alice"], held["bob"]) >= 0
    assert min(outcomes.values()) > 50
