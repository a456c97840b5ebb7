"""Ordered operations: sessions, bundles in flight, retransmission, outcomes (R13-R16, R45)."""

from dataclasses import dataclass

from client.errors import ApplicationFailed, ClientError, OutcomeUnknown, Refused
from client.numbering import MAX_NUMBER, RANDOM_BITS, SessionNumbers, session_number
from client.replies import ProvedReply, ReplyCollector
from client.retry import Retry, soonest
from client.shared import Shared
from client.ticket import Ticket
from client.waiting import WaitingOperations
from pbft.codec import encode_packet, reply_leaf, request_digest
from pbft.messages import (
    CROWDED,
    EXECUTED,
    FAILED,
    OK,
    SESSION_REFUSED,
    OperationResult,
    Reply,
    ReplyLeaf,
    Request,
)

BUNDLES_IN_FLIGHT = 4  # few, so that under load many operations share one signature
OPENING = 0  # the bundle that opens a session


@dataclass(slots=True)
class _Bundle:
    """A signed request that is sent until its outcome is known; its bytes never change (R15)."""

    tickets: tuple[Ticket, ...]
    packet: bytes
    collector: ReplyCollector
    retry: Retry


class OrderedOperations:
    """Everything of a client that is ordered by the cluster."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._writes = WaitingOperations()
        self._reads = WaitingOperations()
        self._numbers: SessionNumbers | None = None
        self._opening = b""  # the packet that opened this session
        self._in_flight: dict[int, _Bundle] = {}
        self._lowest_session = 0
        self._renew_after = shared.parameters.session_idle_ms * 1000 // 2  # µs
        self._sent_at = 0  # when something was last sent in this session

    # --- what comes in ---

    def submit(self, ticket: Ticket) -> None:
        """Queue a new operation."""
        self._queue_of(ticket).add(ticket)

    def order_instead(self, ticket: Ticket) -> None:
        """Order a query that fast reads could not answer (R20)."""
        if not ticket.done:
            self._reads.put_back(ticket)

    def forget(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more; if it was sent, its outcome is still acknowledged."""
        self._queue_of(ticket).remove(ticket)

    def _queue_of(self, ticket: Ticket) -> WaitingOperations:
        return self._reads if ticket.read_only else self._writes

    def connected(self, replica: int) -> None:
        """A connection to `replica` is there: what it would have got before, it gets now.

        The opening, executed or not, tells it over which connection this session is answered.
        """
        if self._numbers is None:
            return
        self._shared.output.send(replica, self._opening)
        if replica == self._shared.views.primary:
            for number, bundle in self._in_flight.items():
                if number != OPENING:
                    self._shared.output.send(replica, bundle.packet)

    def receive(self, replica: int, reply: Reply) -> str | None:
        """Take a reply that came from `replica`: why it was dropped, or None."""
        leaf = reply.leaf
        if leaf.client != self._shared.envelopes.client:
            return "reply to another client"
        bundle = self._bundle_of(leaf)
        if bundle is None:
            suspicious = self._shared.suspicions.late(replica, reply)
            return None if suspicious else "reply to nothing in flight"
        replies = bundle.collector.add(replica, reply)
        if replies is not None:
            self._accept(bundle, leaf, replies)
        return None

    def _bundle_of(self, leaf: ReplyLeaf) -> _Bundle | None:
        numbers = self._numbers
        if numbers is None or leaf.session != numbers.session:
            return None
        return self._in_flight.get(leaf.bundle)

    # --- outcomes ---

    def _accept(self, bundle: _Bundle, leaf: ReplyLeaf, replies: dict[int, ProvedReply]) -> None:
        for replica, proved in replies.items():
            self._shared.views.claim(replica, proved.header.view)
        self._shared.suspicions.accepted(replies, bundle.collector.others(reply_leaf(leaf)))
        if leaf.status == EXECUTED:
            self._executed(bundle, leaf)
        else:
            self._session_lost(leaf)

    def _executed(self, bundle: _Bundle, leaf: ReplyLeaf) -> None:
        self._shared.learn(leaf.seq)
        del self._in_flight[leaf.bundle]
        if leaf.bundle != OPENING and self._numbers is not None:
            self._numbers.finish(leaf.bundle)
        crowded = []
        for ticket, result in zip(bundle.tickets, leaf.results, strict=True):
            if result.code != CROWDED:
                self._shared.output.complete(ticket, outcome(result))
            elif not ticket.done:
                crowded.append(ticket)
        for ticket in reversed(crowded):
            ticket.alone = True
            self._queue_of(ticket).put_back(ticket)

    def _session_lost(self, leaf: ReplyLeaf) -> None:
        """The session is of no use any more; what was sent in it is never sent again (R45)."""
        if leaf.status == SESSION_REFUSED:
            self._lowest_session = _number_in(leaf)
        lost = [ticket for bundle in self._in_flight.values() for ticket in bundle.tickets]
        self._in_flight.clear()
        self._numbers = None
        for ticket in reversed(lost):
            if ticket.read_only:
                self.order_instead(ticket)
            else:
                unknown = OutcomeUnknown("the session was lost before the outcome was known")
                self._shared.output.complete(ticket, unknown)

    # --- what goes out ---

    def advance(self, now: int) -> None:
        """Open a session if one is needed, send what may be sent, send again what is overdue."""
        if self._numbers is not None and self._is_old(now):
            self._numbers = None
        if self._numbers is None and self._next_queue() is not None:
            self._open(now)
        while (queue := self._next_queue()) is not None and self._may_send():
            self._send_bundle(queue, now)
        for bundle in self._in_flight.values():
            if bundle.retry.due <= now:
                self._shared.send_to_all(bundle.packet)
                bundle.retry.again(now)

    def _is_old(self, now: int) -> bool:
        """Whether the replicas may soon evict this session as idle: then another one is opened."""
        return not self._in_flight and now - self._sent_at > self._renew_after

    @property
    def waiting(self) -> bool:
        """Whether operations wait to be sent."""
        return bool(self._writes or self._reads)

    @property
    def next_due(self) -> int | None:
        """When something is to be sent again."""
        return soonest(*(bundle.retry.due for bundle in self._in_flight.values()))

    def _next_queue(self) -> WaitingOperations | None:
        waiting = [queue for queue in (self._writes, self._reads) if queue]
        return min(waiting, key=lambda queue: queue.first or 0, default=None)

    def _may_send(self) -> bool:
        numbers = self._numbers
        if numbers is None or OPENING in self._in_flight:
            return False
        room = numbers.has_room(self._shared.parameters.client_window)
        return room and len(self._in_flight) < BUNDLES_IN_FLIGHT

    def _open(self, now: int) -> None:
        random = self._shared.random.getrandbits(RANDOM_BITS)
        self._numbers = SessionNumbers(session_number(now, random, self._lowest_session))
        # An opening acknowledges nothing. The number tells it from that of another process which
        # shares the key and has drawn the same session: only one of them opens it (R45).
        mark = self._shared.random.getrandbits(63)
        self._opening = self._seal(self._numbers, OPENING, (), False, now, acknowledged=mark)
        self._shared.send_to_all(self._opening)

    def _send_bundle(self, queue: WaitingOperations, now: int) -> None:
        assert self._numbers is not None
        most = self._shared.parameters.max_bundle_operations
        tickets = queue.take(most, self._shared.bundle_bytes)
        number, read_only = self._numbers.take(), queue is self._reads
        packet = self._seal(self._numbers, number, tickets, read_only, now)
        self._shared.output.send(self._shared.views.primary, packet)

    def _seal(
        self,
        numbers: SessionNumbers,
        number: int,
        tickets: tuple[Ticket, ...],
        read_only: bool,
        now: int,
        acknowledged: int | None = None,
    ) -> bytes:
        """The packet of a new bundle, which counts as in flight from now on."""
        shared = self._shared
        self._sent_at = now
        request = Request(
            client=shared.envelopes.client,
            session=numbers.session,
            bundle=number,
            acknowledged=numbers.acknowledged if acknowledged is None else acknowledged,
            read_only=read_only,
            operations=tuple(ticket.operation for ticket in tickets),
        )
        envelope = shared.envelopes.seal(request)
        digest = request_digest(envelope)
        collector = ReplyCollector(shared.envelopes, digest, len(tickets), shared.quorum.w)
        packet = encode_packet(envelope)
        self._in_flight[number] = _Bundle(tickets, packet, collector, Retry(now, shared.random))
        return packet


def outcome(result: OperationResult) -> bytes | ClientError:
    """What the caller gets for one operation's result."""
    if result.code == OK:
        return result.value
    text = result.value.decode(errors="replace")
    return ApplicationFailed(text) if result.code == FAILED else Refused(text)


def _number_in(leaf: ReplyLeaf) -> int:
    """The lowest free session number that a refusal names."""
    value = leaf.results[0].value if leaf.results else b""
    return min(int.from_bytes(value[:8], "big"), MAX_NUMBER)
