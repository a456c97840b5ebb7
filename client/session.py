"""The client's side of the protocol, without I/O.

A `ClientSession` has no clock, no socket and no source of randomness: time comes in as µs since
1970 that never go back, randomness as a seed, packets as bytes with the identity of the replica at
the other end of the authenticated connection. After any call, `poll` says what to send, which
operations are finished, and when to call it again.
"""

from random import Random

from client.admission import Admission
from client.deadlines import Deadlines
from client.envelopes import Envelopes
from client.errors import DeadlineExceeded, LocalError
from client.numbering import MAX_NUMBER
from client.ordered import OrderedOperations
from client.questions import Questions
from client.reads import FastReads
from client.retry import soonest
from client.shared import Shared
from client.suspicion import Suspicion, Suspicions
from client.ticket import Output, Progress, Ticket
from client.views import ViewEstimate
from crypto.signing import Signer, Verifier
from pbft.codec import MalformedMessage, decode_body, decode_packet
from pbft.config import ClusterConfig
from pbft.core.quorum import Quorum
from pbft.messages import Envelope, ReadReply, Reply, StateAnswer, StatusReport, TreePath


class ClientSession:
    """One client of one cluster. `seed` is a secret random integer of the caller."""

    def __init__(
        self, config: ClusterConfig, signer: Signer, verifier: Verifier, seed: int
    ) -> None:
        quorum = Quorum(len(config.replicas))
        envelopes = Envelopes(config, signer, verifier)
        self._shared = Shared(
            replicas=tuple(replica.id for replica in config.replicas),
            quorum=quorum,
            parameters=config.parameters,
            envelopes=envelopes,
            random=Random(seed),
            views=ViewEstimate(quorum),
            suspicions=Suspicions(envelopes),
            output=Output(),
        )
        self._ordered = OrderedOperations(self._shared)
        self._reads = FastReads(self._shared, self._ordered.order_instead)
        self._questions = Questions(self._shared)
        self._parts = (self._reads, self._questions, self._ordered)
        self._deadlines = Deadlines()
        self._admission = Admission()
        self._tickets = 0
        self.dropped: dict[str, int] = {}

    @property
    def view(self) -> int:
        """The view that the cluster is believed to be in."""
        return self._shared.views.view

    @property
    def token(self) -> int:
        """The sequence number up to which this client has seen the state, by what it accepted."""
        return self._shared.token

    @property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Signed replies that contradict accepted outcomes."""
        return self._shared.suspicions.found()

    # --- what the caller wants ---

    def submit(
        self, operation: bytes, *, read_only: bool = False, deadline: int | None = None
    ) -> Ticket:
        """Have `operation` ordered. Raises LocalError (too large), QueueFull."""
        ticket = self._admit(operation, read_only, deadline)
        self._ordered.submit(ticket)
        return ticket

    def read(self, operation: bytes, *, at_least: int = 0, deadline: int | None = None) -> Ticket:
        """Ask for `operation` without ordering it, if that works. Raises as `submit` does.

        With `at_least` any state after that sequence number or a later one will do.
        """
        if not 0 <= at_least <= MAX_NUMBER:
            raise LocalError(f"{at_least} is no sequence number: it must be from 0 to 2^63-1")
        ticket = self._admit(operation, True, deadline)
        ticket.at_least = at_least
        self._reads.submit(ticket)
        return ticket

    def status(self, replica: int, now: int, *, deadline: int | None = None) -> Ticket:
        """Ask `replica` for its report (JSON in UTF-8). Raises LocalError, QueueFull."""
        ticket = self._to_one(replica, deadline)
        self._questions.ask_status(ticket, replica, now)
        return ticket

    def ask_state(
        self,
        replica: int,
        seq: int,
        paths: tuple[TreePath, ...],
        now: int,
        *,
        deadline: int | None = None,
    ) -> Ticket:
        """Ask `replica` for nodes of the state after `seq` (0: its newest stable checkpoint).

        The result is the body of a StateAnswer, unverified. Raises LocalError, QueueFull.
        """
        ticket = self._to_one(replica, deadline)
        self._questions.ask_state(ticket, replica, seq, paths, now)
        return ticket

    def _to_one(self, replica: int, deadline: int | None) -> Ticket:
        if replica not in self._shared.replicas:
            raise LocalError(f"there is no replica {replica}")
        return self._admit(b"", True, deadline)

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more. If it was sent, it may still be executed."""
        if not ticket.done:
            ticket.progress = Progress.DONE
            self._admission.release(ticket)
        for part in self._parts:
            part.forget(ticket)

    def _admit(self, operation: bytes, read_only: bool, deadline: int | None) -> Ticket:
        if not isinstance(operation, bytes):
            raise LocalError(f"an operation is bytes, not {type(operation).__name__}")
        most = self._shared.parameters.max_operation_bytes
        if len(operation) > most:
            raise LocalError(
                f"the operation has {len(operation)} bytes, at most {most} may be sent"
            )
        self._tickets += 1
        ticket = Ticket(self._tickets, operation, read_only, deadline)
        self._admission.admit(ticket)
        self._deadlines.add(ticket)
        return ticket

    # --- what the network brings ---

    def connected(self, replica: int) -> None:
        """A connection to `replica` was made: packets sent to it before may have been lost."""
        for part in self._parts:
            part.connected(replica)

    def receive(self, replica: int, packet: bytes) -> None:
        """Take a packet from the connection to `replica`. What is bad is dropped and counted."""
        reason = self._receive(replica, packet)
        if reason is not None:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _receive(self, replica: int, raw: bytes) -> str | None:
        if replica not in self._shared.replicas:
            return "not from a replica"
        try:
            packet = decode_packet(raw)
            if isinstance(packet, Reply):
                return self._ordered.receive(replica, packet)
            if isinstance(packet, Envelope):
                return self._receive_envelope(replica, packet)
        except MalformedMessage:
            return "malformed"
        return "not for clients"

    def _receive_envelope(self, replica: int, envelope: Envelope) -> str | None:
        body = decode_body(envelope.body)
        if not isinstance(body, ReadReply | StatusReport | StateAnswer):
            return "not for clients"
        if body.replica != replica:
            return "in another replica's name"
        if isinstance(body, ReadReply):
            return self._reads.receive(replica, body, envelope)
        return self._questions.receive(replica, body, envelope)

    # --- what is to be done ---

    @property
    def pending(self) -> bool:
        """Whether `poll` would find something to do now, and not only later."""
        output = self._shared.output
        return bool(output.sends or output.completions or self._ordered.waiting)

    def poll(self, now: int) -> Output:
        """Let time pass until `now`, and hand out all that there is to do."""
        for ticket in self._deadlines.expired(now):
            self._expire(ticket)
        for part in self._parts:
            part.advance(now)
        output = self._shared.output
        self._shared.output = Output()
        for completion in output.completions:
            self._admission.release(completion.ticket)
        output.wake_at = soonest(self._deadlines.next, *(part.next_due for part in self._parts))
        return output

    def _expire(self, ticket: Ticket) -> None:
        sent = ticket.progress is Progress.SENT and not ticket.read_only
        late = DeadlineExceeded("no outcome within the deadline", sent=sent)
        self._shared.output.complete(ticket, late)
        self.abandon(ticket)
