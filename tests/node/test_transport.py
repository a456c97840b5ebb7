"""Where answers to clients go."""

from collections import Counter
from collections.abc import Callable

import pytest

from pbft.messages import Envelope, Packet
from pbft.node import transport
from pbft.node.transport import TcpTransport

ALICE, BOB = b"a" * 32, b"b" * 32
PACKET = Envelope(b"body", bytes(64))


class Channel:
    """Counts the frames that it was given."""

    def __init__(self) -> None:
        self.frames = 0

    def send(self, payload: bytes) -> bool:
        self.frames += 1
        return True


@pytest.fixture
def routes() -> TcpTransport:
    return TcpTransport(Counter())


@pytest.fixture
def channels(routes) -> list[Channel]:
    """Three connections of one key."""
    made = [Channel() for _ in range(3)]
    for channel in made:
        routes.add_client(ALICE, channel)
    return made


def reached(
    channels: list[Channel], send: Callable[[bytes, int, Packet], None], number: int
) -> list[int]:
    before = [channel.frames for channel in channels]
    send(ALICE, number, PACKET)
    return [channel.frames - old for channel, old in zip(channels, before, strict=True)]


def replied(routes: TcpTransport, channels: list[Channel], session: int) -> list[int]:
    return reached(channels, routes.reply, session)


def answered(routes: TcpTransport, channels: list[Channel], nonce: int) -> list[int]:
    return reached(channels, routes.answer, nonce)


def test_a_reply_goes_only_where_its_session_was_heard_from_last(routes, channels):
    routes.learn_session(ALICE, 7, channels[0])
    routes.learn_session(ALICE, 7, channels[1])
    assert replied(routes, channels, 7) == [0, 1, 0]
    assert replied(routes, channels, 7) == [0, 1, 0]


def test_a_session_that_was_not_heard_from_is_answered_wherever_its_key_is(routes, channels):
    routes.learn_session(BOB, 7, Channel())
    assert replied(routes, channels, 7) == [1, 1, 1]


def test_a_question_is_answered_where_it_was_asked_and_then_forgotten(routes, channels):
    routes.learn_question(ALICE, 9, channels[2])
    assert answered(routes, channels, 9) == [0, 0, 1]
    assert answered(routes, channels, 9) == [1, 1, 1]


def test_the_routes_of_a_lost_connection_are_forgotten(routes, channels):
    routes.learn_session(ALICE, 7, channels[0])
    routes.learn_question(ALICE, 9, channels[0])
    routes.drop_client(ALICE, channels[0])
    assert replied(routes, channels, 7) == [0, 1, 1]
    assert answered(routes, channels, 9) == [0, 1, 1]


@pytest.mark.rule("R25")
def test_questions_push_out_no_session_and_both_are_bounded(routes, channels, monkeypatch):
    monkeypatch.setattr(transport, "MAX_QUESTIONS", 2)
    monkeypatch.setattr(transport, "MAX_SESSIONS", 2)
    for session in (1, 2, 3):
        routes.learn_session(ALICE, session, channels[0])
    for nonce in (11, 12, 13):
        routes.learn_question(ALICE, nonce, channels[1])
    assert replied(routes, channels, 1) == [1, 1, 1]
    assert replied(routes, channels, 2) == [1, 0, 0]
    assert answered(routes, channels, 11) == [1, 1, 1]
    assert answered(routes, channels, 12) == [0, 1, 0]
