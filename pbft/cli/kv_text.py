"""Keys, values and transactions as they are typed on the command line and printed."""

import shlex
from typing import get_args

from client.transactions import (
    Symbol,
    compare_created,
    compare_modified,
    compare_value,
    compare_version,
    op_delete,
    op_get,
    op_put,
    op_range,
)
from pbft.apps.kv_codec import Compare, DeleteResult, PutResult, RangeResult, Step, StepResult
from pbft.cli.errors import CliError

MAX_NUMBER = 2**63 - 1

_NUMBERS = {
    "version": compare_version,
    "created": compare_created,
    "modified": compare_modified,
}


class Text:
    """Keys and values as UTF-8 text, or as hexadecimal digits."""

    def __init__(self, *, hexadecimal: bool) -> None:
        self._hexadecimal = hexadecimal

    def parse(self, text: str) -> bytes:
        """The bytes that `text` stands for. Raises CliError."""
        if not self._hexadecimal:
            return text.encode("utf-8", "surrogateescape")
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise CliError(f"{text!r} is not hexadecimal, as --hex wants it") from None

    def show(self, raw: bytes) -> bytes:
        """What to print for `raw`: the bytes themselves, or their hexadecimal digits."""
        return raw.hex().encode() if self._hexadecimal else raw


def parse_condition(condition: str, text: Text) -> Compare:
    """`KEY FIELD RELATION OPERAND` as a comparison. Raises CliError."""
    match _words(condition):
        case [key, field, relation, operand]:
            return _compare(text.parse(key), field, _symbol(relation), operand, text)
    raise CliError(f"a condition reads 'KEY FIELD RELATION OPERAND', not {condition!r}")


def parse_step(step: str, text: Text) -> Step:
    """`put KEY VALUE`, `get KEY`, `delete KEY` or `range FROM [TO]`. Raises CliError."""
    match _words(step):
        case ["put", key, value]:
            return op_put(text.parse(key), text.parse(value))
        case ["get", key]:
            return op_get(text.parse(key))
        case ["delete", key]:
            return op_delete(text.parse(key))
        case ["range", start]:
            return op_range(text.parse(start))
        case ["range", start, end]:
            return op_range(text.parse(start), text.parse(end) or None)
    raise CliError(
        "an operation reads 'put KEY VALUE', 'get KEY', 'delete KEY' or 'range FROM [TO]', "
        f"not {step!r}"
    )


def show_result(result: StepResult, text: Text) -> list[bytes]:
    """The lines that tell the outcome of one operation of a transaction."""
    match result:
        case RangeResult():
            return show_range(result, text)
        case DeleteResult():
            return [b"deleted %d" % result.deleted]
        case PutResult():
            return [b"put"]
    raise CliError("the cluster answered with a result that was not asked for")


def show_range(result: RangeResult, text: Text) -> list[bytes]:
    """One line per key: the key, a tab, the value."""
    return [text.show(kv.key) + b"\t" + text.show(kv.value) for kv in result.kvs]


def _compare(key: bytes, field: str, relation: Symbol, operand: str, text: Text) -> Compare:
    if field == "value":
        return compare_value(key, relation, text.parse(operand))
    if field not in _NUMBERS:
        raise CliError(f"a condition is on value, version, created or modified, not on {field!r}")
    return _NUMBERS[field](key, relation, _number(operand))


def _symbol(relation: str) -> Symbol:
    wanted = "==" if relation == "=" else relation
    for symbol in get_args(Symbol):
        if wanted == symbol:
            found: Symbol = symbol
            return found
    raise CliError(f"a condition compares with =, !=, < or >, not with {relation!r}")


def _number(operand: str) -> int:
    if operand.isascii() and operand.isdigit() and len(operand) < 20:
        number = int(operand)
        if number <= MAX_NUMBER:
            return number
    raise CliError(f"{operand!r} is not a whole number from 0 to {MAX_NUMBER}")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise CliError(f"{line!r} cannot be split into words: {error}") from None
