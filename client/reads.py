"""Fast reads: equal answers of distinct replicas, without ordering (R20).

Several queries share one signed READ, but each is decided for itself: it has its answer once enough
replicas agree on it (`client.read_rules`), and is ordered as soon as they no longer can, or when
the time is up.
"""

from collections.abc import Callable

from client.ordered import outcome
from client.read_rules import (
    Agreed,
    Answers,
    Decision,
    Undecided,
    meets_every_write,
    meets_what_is_known,
)
from client.retry import soonest
from client.shared import Shared
from client.ticket import Ticket
from client.waiting import WaitingOperations
from pbft.codec import encode_packet
from pbft.messages import CROWDED, Envelope, Read, ReadReply

READS_IN_FLIGHT = 8
FAST_READ_TIMEOUT_US = 300_000


class _FastRead:
    """One READ and the verified answers to it, at most one per replica."""

    __slots__ = ("answers", "at_least", "due", "packet", "size", "undecided")

    def __init__(self, tickets: tuple[Ticket, ...], at_least: int, packet: bytes, due: int) -> None:
        self.at_least = at_least
        self.packet = packet
        self.due = due
        self.size = len(tickets)
        self.undecided = dict(enumerate(tickets))
        self.answers: dict[int, ReadReply] = {}

    def answers_to(self, index: int) -> Answers:
        """What was said of one operation; refusals say nothing."""
        said = (answer for answer in self.answers.values() if not answer.refused)
        return [(answer.results[index], answer.seq) for answer in said]


class FastReads:
    """The queries that are asked of all replicas; `order` takes those that need ordering."""

    def __init__(self, shared: Shared, order: Callable[[Ticket], None]) -> None:
        self._shared = shared
        self._order = order
        self._plain = WaitingOperations()
        self._bounded = WaitingOperations()  # those with `at_least`
        self._in_flight: dict[int, _FastRead] = {}

    def submit(self, ticket: Ticket) -> None:
        """Queue a query."""
        self._queue_of(ticket).add(ticket)

    def _queue_of(self, ticket: Ticket) -> WaitingOperations:
        return self._bounded if ticket.at_least else self._plain

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more."""
        self._queue_of(ticket).remove(ticket)

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
        for index, ticket in list(read.undecided.items()):
            decision = self._decision(read, index)
            if isinstance(decision, Agreed):
                self._settle(ticket, decision)
            elif decision is Undecided.HOPELESS:
                self._order(ticket)
            else:
                continue
            del read.undecided[index]
        if not read.undecided:
            del self._in_flight[nonce]

    def _decision(self, read: _FastRead, index: int) -> Decision:
        quorum, answers = self._shared.quorum, read.answers_to(index)
        missing = quorum.n - len(read.answers)
        if read.at_least:
            return meets_what_is_known(quorum, read.at_least, answers, missing)
        return meets_every_write(quorum, answers, missing)

    def _settle(self, ticket: Ticket, agreed: Agreed) -> None:
        if agreed.result.code == CROWDED:
            ticket.alone = True
            self._queue_of(ticket).put_back(ticket)
        else:
            self._shared.learn(agreed.seq)
            self._shared.output.complete(ticket, outcome(agreed.result))

    def advance(self, now: int) -> None:
        """Order what has waited too long, and ask what waits."""
        overdue = [nonce for nonce, read in self._in_flight.items() if read.due <= now]
        for nonce in overdue:
            for ticket in self._in_flight.pop(nonce).undecided.values():
                self._order(ticket)
        for queue in (self._plain, self._bounded):
            while queue and len(self._in_flight) < READS_IN_FLIGHT:
                self._ask(queue, now)

    @property
    def next_due(self) -> int | None:
        """When the first read has waited too long."""
        return soonest(*(read.due for read in self._in_flight.values()))

    def _ask(self, queue: WaitingOperations, now: int) -> None:
        shared = self._shared
        tickets = queue.take(shared.parameters.max_bundle_operations, shared.bundle_bytes)
        nonce = shared.random.getrandbits(63)
        operations = tuple(ticket.operation for ticket in tickets)
        at_least = max(ticket.at_least for ticket in tickets)
        read = Read(shared.envelopes.client, nonce, at_least, operations)
        packet = encode_packet(shared.envelopes.seal(read))
        self._in_flight[nonce] = _FastRead(tickets, at_least, packet, now + FAST_READ_TIMEOUT_US)
        shared.send_to_all(packet)
