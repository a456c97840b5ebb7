"""The smallest application: named counters.

    pbft cluster --keys keys/counter --data data/counter --app examples.counter:Counter
    python examples/counter.py --keys keys/counter add visits 5
    python examples/counter.py --keys keys/counter read visits

An operation is text: "add NAME NUMBER" or "read NAME". A result is the counter's value as text.
"""

import argparse
import asyncio
import re
import sys
from pathlib import Path

from client import ClientError
from pbft import Client, Context, ReadableState, Refused, State, StateMachine

MOST = 2**63 - 1
_ADD = re.compile(rb"add ([a-z0-9-]{1,64}) (-?[0-9]{1,18})")
_READ = re.compile(rb"read ([a-z0-9-]{1,64})")


class Counter(StateMachine):
    """Counters by name, each 0 until something is added to it."""

    def apply(self, state: State, operation: bytes, context: Context) -> bytes:
        """Add to a counter and return its new value. Raises Refused."""
        match = _ADD.fullmatch(operation)
        if match is None:
            raise Refused("an operation reads: add NAME NUMBER")
        name, amount = match.groups()
        total = int(_value(state, name)) + int(amount)
        if abs(total) > MOST:
            raise Refused("the counter would run over")
        result = b"%d" % total
        state.put(name, result)
        return result

    def query(self, state: ReadableState, operation: bytes) -> bytes:
        """A counter's value. Raises Refused."""
        match = _READ.fullmatch(operation)
        if match is None:
            raise Refused("a query reads: read NAME")
        return _value(state, match.group(1))


def _value(state: ReadableState, name: bytes) -> bytes:
    return state.get(name) or b"0"


async def _main(keys: Path, words: list[str]) -> None:
    operation = " ".join(words).encode()
    async with Client.connect(keys / "cluster.toml", keys / "client-0.pem") as client:
        call = client.query if words[0] == "read" else client.submit
        print((await call(operation)).decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk to a cluster that runs the counter.")
    parser.add_argument("--keys", type=Path, default=Path("keys"))
    parser.add_argument("words", nargs="+", metavar="add NAME NUMBER | read NAME")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.keys, arguments.words))
    except ClientError as error:
        sys.exit(f"counter: {error}")
