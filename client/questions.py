"""Asking single replicas: how they are, and what a certified state looks like."""

from dataclasses import dataclass

from client.retry import Retry, soonest
from client.shared import Shared
from client.ticket import Ticket
from pbft.codec import encode_packet
from pbft.messages import (
    Envelope,
    StateAnswer,
    StateQuery,
    StatusQuery,
    StatusReport,
    TreePath,
)

Answer = StatusReport | StateAnswer


@dataclass(slots=True)
class _Question:
    ticket: Ticket
    replica: int
    answer: type[Answer]
    packet: bytes
    retry: Retry


class Questions:
    """Questions in flight, each to one replica, whose answer is that replica's word only."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._in_flight: dict[int, _Question] = {}

    def ask_status(self, ticket: Ticket, replica: int, now: int) -> None:
        """Ask how `replica` is; the result is its report."""
        nonce = self._shared.random.getrandbits(63)
        query = StatusQuery(client=self._shared.envelopes.client, nonce=nonce)
        self._ask(ticket, replica, query, StatusReport, now)

    def ask_state(
        self, ticket: Ticket, replica: int, seq: int, paths: tuple[TreePath, ...], now: int
    ) -> None:
        """Ask `replica` for nodes of the state after `seq`; the result is the answer's body."""
        nonce = self._shared.random.getrandbits(63)
        query = StateQuery(self._shared.envelopes.client, nonce, seq, paths)
        self._ask(ticket, replica, query, StateAnswer, now)

    def _ask(
        self,
        ticket: Ticket,
        replica: int,
        query: StatusQuery | StateQuery,
        answer: type[Answer],
        now: int,
    ) -> None:
        packet = encode_packet(self._shared.envelopes.seal(query))
        retry = Retry(now, self._shared.random)
        self._in_flight[query.nonce] = _Question(ticket, replica, answer, packet, retry)
        self._shared.output.send(replica, packet)

    def connected(self, replica: int) -> None:
        """Ask `replica` again what is asked of it."""
        for question in self._in_flight.values():
            if question.replica == replica:
                self._shared.output.send(replica, question.packet)

    def receive(self, replica: int, answer: Answer, envelope: Envelope) -> str | None:
        """Take an answer that came from `replica`: why it was dropped, or None."""
        question = self._in_flight.get(answer.nonce)
        if question is None or question.replica != replica:
            return "answer to no question"
        if answer.client != self._shared.envelopes.client:
            return "answer to no question"
        if not isinstance(answer, question.answer):
            return "answer to another question"
        if not self._shared.envelopes.signed_by(replica, envelope):
            return "bad signature"
        del self._in_flight[answer.nonce]
        said = answer.report if isinstance(answer, StatusReport) else envelope.body
        self._shared.output.complete(question.ticket, said)
        return None

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more."""
        gone = [nonce for nonce, each in self._in_flight.items() if each.ticket is ticket]
        for nonce in gone:
            del self._in_flight[nonce]

    def advance(self, now: int) -> None:
        """Ask again what is overdue."""
        for question in self._in_flight.values():
            if question.retry.due <= now:
                self._shared.output.send(question.replica, question.packet)
                question.retry.again(now)

    @property
    def next_due(self) -> int | None:
        """When the next one is to be asked again."""
        return soonest(*(question.retry.due for question in self._in_flight.values()))
