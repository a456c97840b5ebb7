import pytest

from client.transactions import compare_modified, compare_value, compare_version
from pbft.apps.kv_codec import (
    Compare,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Step,
)
from pbft.cli.errors import CliError
from pbft.cli.kv_text import Text, parse_condition, parse_step, show_result

PLAIN, HEX = Text(hexadecimal=False), Text(hexadecimal=True)


@pytest.mark.parametrize(
    ("condition", "compare"),
    [
        ("color value = blue", compare_value(b"color", "==", b"blue")),
        ("color value != 'dark red'", compare_value(b"color", "!=", b"dark red")),
        ("color version = 0", compare_version(b"color", "==", 0)),
        ("color modified > 17", compare_modified(b"color", ">", 17)),
    ],
)
def test_a_condition_becomes_a_comparison(condition: str, compare: Compare) -> None:
    assert parse_condition(condition, PLAIN) == compare


@pytest.mark.parametrize(
    ("step", "operation"),
    [
        ("put color 'dark red'", Put(b"color", b"dark red")),
        ("get color", Range(b"color")),
        ("delete color", Delete(b"color")),
        ("range a b", Range(b"a", b"b")),
        ("range a", Range(b"a", b"\0")),
        ("range '' ''", Range(b"\0", b"\0")),
    ],
)
def test_a_step_becomes_an_operation(step: str, operation: Step) -> None:
    assert parse_step(step, PLAIN) == operation


def test_with_hex_keys_and_values_are_digits() -> None:
    assert parse_step("put 00ff ''", HEX) == Put(b"\x00\xff", b"")
    assert parse_condition("00 value < ff", HEX) == compare_value(b"\0", "<", b"\xff")
    assert show_result(one_key(b"\x00\xff", b"\n"), HEX) == [b"00ff\t0a"]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("", "a condition reads"),
        ("color = blue", "a condition reads"),
        ("color value = dark red", "a condition reads"),
        ("color lease = 1", "not on 'lease'"),
        ("color value <= 1", "not with '<='"),
        ("color version = -1", "'-1' is not a whole number"),
        ("color version = x", "'x' is not a whole number"),
        (f"color version = {2**63}", "is not a whole number"),
        ("color version = 'x", "cannot be split into words"),
    ],
)
def test_a_malformed_condition_is_refused(condition: str, reason: str) -> None:
    with pytest.raises(CliError, match=reason):
        parse_condition(condition, PLAIN)


@pytest.mark.parametrize("step", ["", "put a", "get", "delete", "range", "frobnicate a", "get a b"])
def test_a_malformed_step_is_refused(step: str) -> None:
    with pytest.raises(CliError, match="an operation reads"):
        parse_step(step, PLAIN)


def test_what_is_not_hexadecimal_is_refused() -> None:
    with pytest.raises(CliError, match="not hexadecimal"):
        HEX.parse("xyz")


def test_bytes_that_are_not_utf8_pass_through_the_command_line() -> None:
    assert PLAIN.parse(b"\xff".decode("utf-8", "surrogateescape")) == b"\xff"


def test_results_are_shown_line_by_line() -> None:
    assert show_result(one_key(b"color", b"blue"), PLAIN) == [b"color\tblue"]
    assert show_result(DeleteResult(7, 2), PLAIN) == [b"deleted 2"]
    assert show_result(PutResult(7), PLAIN) == [b"put"]


def one_key(key: bytes, value: bytes) -> RangeResult:
    return RangeResult(7, (KeyValue(key, value, 1, 1, 1),), count=1)
