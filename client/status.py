"""Asking single replicas how they are."""

from dataclasses import dataclass

from client.retry import Retry, soonest
from client.shared import Shared
from client.ticket import Ticket
from pbft.codec import encode_packet
from pbft.messages import Envelope, StatusQuery, StatusReport


@dataclass(slots=True)
class _Query:
    ticket: Ticket
    replica: int
    packet: bytes
    retry: Retry


class StatusQueries:
    """Queries in flight, each to one replica, whose answer is that replica's word only."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._in_flight: dict[int, _Query] = {}

    def submit(self, ticket: Ticket, replica: int, now: int) -> None:
        """Ask `replica`."""
        nonce = self._shared.random.getrandbits(63)
        query = StatusQuery(client=self._shared.envelopes.client, nonce=nonce)
        packet = encode_packet(self._shared.envelopes.seal(query))
        retry = Retry(now, self._shared.random)
        self._in_flight[nonce] = _Query(ticket, replica, packet, retry)
        self._shared.output.send(replica, packet)

    def connected(self, replica: int) -> None:
        """Ask `replica` again what is asked of it."""
        for query in self._in_flight.values():
            if query.replica == replica:
                self._shared.output.send(replica, query.packet)

    def receive(self, replica: int, report: StatusReport, envelope: Envelope) -> str | None:
        """Take a report that came from `replica`: why it was dropped, or None."""
        query = self._in_flight.get(report.nonce)
        if query is None or query.replica != replica:
            return "answer to no status query"
        if report.client != self._shared.envelopes.client:
            return "answer to no status query"
        if not self._shared.envelopes.signed_by(replica, envelope):
            return "bad signature"
        del self._in_flight[report.nonce]
        self._shared.output.complete(query.ticket, report.report)
        return None

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more."""
        gone = [nonce for nonce, query in self._in_flight.items() if query.ticket is ticket]
        for nonce in gone:
            del self._in_flight[nonce]

    def advance(self, now: int) -> None:
        """Ask again what is overdue."""
        for query in self._in_flight.values():
            if query.retry.due <= now:
                self._shared.output.send(query.replica, query.packet)
                query.retry.again(now)

    @property
    def next_due(self) -> int | None:
        """When something is to be asked again."""
        return soonest(*(query.retry.due for query in self._in_flight.values()))
