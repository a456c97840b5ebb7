"""What clients did and what came back: the material of the linearizability check.

The operations are those of a register under each key, as etcd has them: put, get, delete, and
compare-and-swap on the value or on absence. A history can be kept as JSON lines, one operation
each, with bytes in base64.
"""

from collections.abc import Iterable
from enum import Enum
from typing import IO

import msgspec
from msgspec import Struct


class Action(Enum):
    """What an operation does to its key."""

    PUT = "put"
    GET = "get"
    DELETE = "delete"
    CAS = "cas"


class Operation(Struct, frozen=True, forbid_unknown_fields=True):
    """One operation of one client. Times are in µs, on one scale for all clients.

    A read with a token may answer from any state since what the token stands for: its `call` is
    then when that began, and not when the read did. `reply` is None where the outcome is unknown:
    it may take effect at any time after its call, or never. Raises ValueError for what no client
    can have done.
    """

    client: int
    call: int
    reply: int | None
    key: bytes
    action: Action
    argument: bytes | None = None  # the new value of a PUT or CAS
    expected: bytes | None = None  # of a CAS: the value to replace, or None for "absent"
    result: bytes | None = None  # of a GET, or of a CAS that failed: the value found, or None
    succeeded: bool = True  # of a CAS

    def __post_init__(self) -> None:
        if self.reply is not None and self.reply < self.call:
            raise ValueError("a reply that comes before its call")
        if (self.argument is not None) != (self.action in (Action.PUT, Action.CAS)):
            raise ValueError("a put and a compare-and-swap have an argument, others have none")


class MalformedHistory(ValueError):
    """A file does not hold a history; the text names the line and the reason."""


def dump(history: Iterable[Operation], file: IO[bytes]) -> None:
    """Write `history` as JSON lines."""
    file.writelines(msgspec.json.encode(operation) + b"\n" for operation in history)


def load(file: IO[bytes]) -> list[Operation]:
    """Read what `dump` has written. Raises MalformedHistory."""
    return [_parse(number, line) for number, line in enumerate(file, start=1)]


def _parse(number: int, line: bytes) -> Operation:
    try:
        return msgspec.json.decode(line, type=Operation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedHistory(f"line {number} is not an operation: {error}") from None
