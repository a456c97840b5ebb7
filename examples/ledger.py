"""A small ledger: accounts that belong to clients, and transfers that never overdraw one.

    pbft cluster --keys keys/ledger --data data/ledger --app examples.ledger:Ledger
    python examples/ledger.py --keys keys/ledger open bank
    python examples/ledger.py --keys keys/ledger --client client-1 open alice
    python examples/ledger.py --keys keys/ledger pay bank alice 100
    python examples/ledger.py --keys keys/ledger show

Whoever opens the account "bank" issues the money: that account alone may go below zero, so all
balances always add up to zero. An account belongs to the client key that opened it, and only its
owner pays from it. Replicas agree on who signed an operation and in which order operations come;
so each of them accepts or refuses a transfer alike.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from client import ClientError
from pbft import Client, Context, ReadableState, Refused, State, StateMachine

BANK = "bank"
MOST = 2**62

Name = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
Amount = Annotated[int, Meta(ge=1, le=2**53)]


class Open(Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """Open an account; it belongs to the client that asks for it."""

    account: Name


class Pay(Struct, frozen=True, tag="pay", forbid_unknown_fields=True):
    """Move `amount` from one account to another."""

    source: Name
    target: Name
    amount: Amount


class Account(Struct, frozen=True, array_like=True):
    """What the state holds under an account's name."""

    owner: bytes  # a client's public key
    balance: int
    changed: int  # the agreed time (µs since 1970) of the last change


_operations = msgspec.json.Decoder(Open | Pay)
_accounts = msgspec.msgpack.Decoder(Account)
_encode = msgspec.msgpack.encode


class Ledger(StateMachine):
    """Operations are Open and Pay as JSON; the one query, b"balances", gives them by name."""

    def apply(self, state: State, operation: bytes, context: Context) -> bytes:
        """Carry out an operation and return the balance of its (source) account. Raises Refused."""
        try:
            wanted = _operations.decode(operation)
        except msgspec.DecodeError:
            raise Refused("this is not an operation of the ledger") from None
        if isinstance(wanted, Open):
            return b"%d" % _open(state, wanted, context)
        return b"%d" % _pay(state, wanted, context)

    def query(self, state: ReadableState, operation: bytes) -> bytes:
        """All balances as a JSON object. Raises Refused."""
        if operation != b"balances":
            raise Refused('the ledger answers one query: "balances"')
        return msgspec.json.encode(
            {name.decode(): _accounts.decode(raw).balance for name, raw in state.range()}
        )


def _open(state: State, wanted: Open, context: Context) -> int:
    if state.get(wanted.account.encode()) is not None:
        raise Refused(f"there is an account {wanted.account} already")
    _save(state, wanted.account, Account(context.client, 0, context.time))
    return 0


def _pay(state: State, wanted: Pay, context: Context) -> int:
    source, target = _load(state, wanted.source), _load(state, wanted.target)
    if source.owner != context.client:
        raise Refused(f"the account {wanted.source} belongs to somebody else")
    if wanted.source == wanted.target:
        raise Refused("an account cannot pay itself")
    left, received = source.balance - wanted.amount, target.balance + wanted.amount
    if left < (-MOST if wanted.source == BANK else 0):
        raise Refused(f"the account {wanted.source} has only {source.balance}")
    _save(state, wanted.source, Account(source.owner, left, context.time))
    _save(state, wanted.target, Account(target.owner, received, context.time))
    return left


def _load(state: ReadableState, name: str) -> Account:
    raw = state.get(name.encode())
    if raw is None:
        raise Refused(f"there is no account {name}")
    return _accounts.decode(raw)


def _save(state: State, name: str, account: Account) -> None:
    state.put(name.encode(), _encode(account))


class LedgerClient:
    """Typed calls to the ledger over an open client. All raise ClientError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def open(self, account: str) -> None:
        """Open an account."""
        await self._client.submit(msgspec.json.encode(Open(account)))

    async def pay(self, source: str, target: str, amount: int) -> int:
        """Move money; what is left on the source account."""
        return int(await self._client.submit(msgspec.json.encode(Pay(source, target, amount))))

    async def balances(self) -> dict[str, int]:
        """All of them, by name."""
        return msgspec.json.decode(await self._client.query(b"balances"), type=dict[str, int])


async def _main(keys: Path, name: str, words: list[str]) -> None:
    async with Client.connect(keys / "cluster.toml", keys / f"{name}.pem") as client:
        ledger = LedgerClient(client)
        match words:
            case ["open", account]:
                await ledger.open(account)
            case ["pay", source, target, amount] if amount.isdecimal():
                print(await ledger.pay(source, target, int(amount)))
            case ["show"]:
                for account, balance in (await ledger.balances()).items():
                    print(f"{account:>16} {balance:>12}")
            case _:
                sys.exit("say: open ACCOUNT | pay FROM TO AMOUNT | show")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk to a cluster that runs the ledger.")
    parser.add_argument("--keys", type=Path, default=Path("keys"))
    parser.add_argument("--client", default="client-0")
    parser.add_argument("words", nargs="+", metavar="open ACCOUNT | pay FROM TO AMOUNT | show")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.keys, arguments.client, arguments.words))
    except ClientError as error:
        sys.exit(f"ledger: {error}")
