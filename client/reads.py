"""Fast reads: q equal answers of distinct replicas, without ordering (R20).

Several queries share one signed READ, but each is decided for itself: it has its answer once q
replicas agree on it, and is ordered as soon as they no longer can, or when the time is up.
"""

from collections.abc import Callable

from client.ordered import outcome
from client.retry import soonest
from client.shared import Shared
from client.ticket import Ticket
from client.waiting import WaitingOperations
from pbft.codec import encode_packet
from pbft.messages import CROWDED, Envelope, OperationResult, Read, ReadReply

READS_IN_FLIGHT = 8
FAST_READ_TIMEOUT_US = 300_000


class _FastRead:
    """One READ and the verified answers to it, at most one per replica."""

    __slots__ = ("answers", "due", "packet", "size", "undecided")

    def __init__(self, tickets: tuple[Ticket, ...], packet: bytes, due: int) -> None:
        self.packet = packet
        self.due = due
        self.size = len(tickets)
        self.undecided = dict(enumerate(tickets))
        self.answers: dict[int, ReadReply] = {}

    def votes(self, index: int) -> dict[OperationResult, int]:
        """How many replicas gave which result for one operation; refusals give none."""
        counts: dict[OperationResult, int] = {}
        for answer in self.answers.values():
            if not answer.refused:
                result = answer.results[index]
                counts[result] = counts.get(result, 0) + 1
        return counts


class FastReads:
    """The queries that are asked of all replicas; `order` takes those that need ordering."""

    def __init__(self, shared: Shared, order: Callable[[Ticket], None]) -> None:
        self._shared = shared
        self._order = order
        self._waiting = WaitingOperations()
        self._in_flight: dict[int, _FastRead] = {}

    def submit(self, ticket: Ticket) -> None:
        """Queue a query."""
        self._waiting.add(ticket)

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more."""
        self._waiting.remove(ticket)

    def connected(self, replica: int) -> None:
        """Ask `replica` what it was not asked yet."""
        for read in self._in_flight.values():
            if replica not in read.answers:
                self._shared.output.send(replica, read.packet)

    def receive(self, replica: int, reply: ReadReply, envelope: Envelope) -> str | None:
        """Take an answer that came from `replica`: why it was dropped, or None."""
        read = self._in_flight.get(reply.nonce)
        if read is None or reply.client != self._shared.envelopes.client:
            return "answer to no read"
        if reply.replica in read.answers:
            return "repeated answer"
        if not reply.refused and len(reply.results) != read.size:
            return "wrong number of results"
        if not self._shared.envelopes.signed_by(replica, envelope):
            return "bad signature"
        read.answers[replica] = reply
        self._decide(reply.nonce, read)
        return None

    def _decide(self, nonce: int, read: _FastRead) -> None:
        missing = self._shared.quorum.n - len(read.answers)
        for index, ticket in list(read.undecided.items()):
            votes = read.votes(index)
            most = max(votes, key=lambda result: votes[result], default=None)
            count = votes[most] if most is not None else 0
            if most is not None and count >= self._shared.quorum.q:
                self._settle(ticket, most)
            elif count + missing < self._shared.quorum.q:
                self._order(ticket)
            else:
                continue
            del read.undecided[index]
        if not read.undecided:
            del self._in_flight[nonce]

    def _settle(self, ticket: Ticket, result: OperationResult) -> None:
        if result.code == CROWDED:
            ticket.alone = True
            self._waiting.put_back(ticket)
        else:
            self._shared.output.complete(ticket, outcome(result))

    def advance(self, now: int) -> None:
        """Order what has waited too long, and ask what waits."""
        overdue = [nonce for nonce, read in self._in_flight.items() if read.due <= now]
        for nonce in overdue:
            for ticket in self._in_flight.pop(nonce).undecided.values():
                self._order(ticket)
        while self._waiting and len(self._in_flight) < READS_IN_FLIGHT:
            self._ask(now)

    @property
    def next_due(self) -> int | None:
        """When the first read has waited too long."""
        return soonest(*(read.due for read in self._in_flight.values()))

    def _ask(self, now: int) -> None:
        shared = self._shared
        tickets = self._waiting.take(shared.parameters.max_bundle_operations, shared.bundle_bytes)
        nonce = shared.random.getrandbits(63)
        operations = tuple(ticket.operation for ticket in tickets)
        read = Read(client=shared.envelopes.client, nonce=nonce, operations=operations)
        packet = encode_packet(shared.envelopes.seal(read))
        self._in_flight[nonce] = _FastRead(tickets, packet, now + FAST_READ_TIMEOUT_US)
        shared.send_to_all(packet)
