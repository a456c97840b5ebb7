"""One turn: events -> core -> disk -> application -> network (docs/architecture.md, "One turn").

Everything here is synchronous and runs on one thread: what arrives while a turn commits is the next
turn's input, which is group commit by construction. Clock, transport and databases are ports, so
the simulator runs this file as it ships.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from pbft.apps.state_machine import StateMachine
from pbft.core import events
from pbft.core.budget import Budgets
from pbft.core.context import Context, Instant
from pbft.core.output import (
    Answer,
    AnswerRead,
    AnswerState,
    AnswerStatus,
    BeginTransfer,
    Execute,
    FinishTransfer,
    InstallNodes,
    Note,
    Output,
    ResendReply,
    Send,
)
from pbft.core.replica import Foundation, Replica
from pbft.messages import StateSummary
from pbft.node.authentication import Authenticator, Peer, Rejected
from pbft.node.divergence import show
from pbft.node.executor import Executor
from pbft.node.log_store import LogStore
from pbft.node.ports import Clock, Transport, Verifier
from pbft.node.replying import Replying
from pbft.node.report import report
from pbft.node.state_queries import StateQueries
from pbft.node.state_sync import Installer, PinnedCheckpoints, StateServer
from pbft.storage.scrub import Progress
from pbft.storage.state_store import StateStore

READS_PER_SECOND, READS_BURST = 200_000, 100_000
"""What the fast reads of one client may read: entries, and KiB of their values."""

Observer = Callable[[Note], None]
Heard = Callable[[events.Event], None]


class Frame(Struct, frozen=True):
    """Bytes that wait for their turn; `heard` is told what they turn out to be."""

    raw: bytes
    peer: Peer
    heard: Heard | None


class Halted(Exception):
    """The replica has stopped itself; the text says why."""


class Node:
    """A replica with its disk and application, ready to take frames and ticks."""

    def __init__(
        self,
        context: Context,
        machine: StateMachine,
        log: LogStore,
        store: StateStore,
        clock: Clock,
        transport: Transport,
        verifier: Verifier,
        observer: Observer,
        counters: Counter[str],
        folder: Path | None = None,
    ) -> None:
        """`folder` is where a replica that halts leaves what its operator must see."""
        parameters = context.parameters
        self._context = context
        self._log = log
        self.store = store
        self._clock = clock
        self._transport = transport
        self._observer = observer
        self._folder = folder
        self.executor = Executor(store, machine, parameters, context.clients)
        self._pins = PinnedCheckpoints()
        self._server = StateServer(context, self._pins, transport, clock)
        self._state_queries = StateQueries(context, transport, self._pins)
        self._installer = Installer(store)
        self._replies = Replying(context, transport)
        self._reading = Budgets[bytes](READS_PER_SECOND, READS_BURST)
        self.core = Replica(context, self._foundation(), clock.now())
        self.authenticator = Authenticator(context.config, verifier, self.core)
        self.counters = counters
        self._queue: deque[events.Event | Frame] = deque()
        self._core_wakes: int | None = None
        self.wake_at: int | None = None
        self.scrubbed = Progress()  # by whoever reads the disk again in the background
        if store.transfer_target is None and store.seq:
            self._pins.pin(store.pin(), clock.now().mono)

    def _foundation(self) -> Foundation:
        if self.store.transfer_target is not None:
            return Foundation(self._log.restore(), complete=False)
        return Foundation(
            restored=self._log.restore(),
            executed=self.store.seq,
            sessions=self.executor.session_facts(),
            next_deadline=self.executor.next_deadline(),
            summary=self.store.summary() if self.store.seq else None,
        )

    # -- what the shell calls

    def start(self, nonce: int) -> None:
        """Begin: count this start, greet the others, execute what the log holds already."""
        self._queue.append(events.Started(nonce))
        self.run()

    def receive(self, raw: bytes, peer: Peer, heard: Heard | None = None) -> None:
        """Take one frame; it is authenticated in the next turn, once what came before it is known.

        So a vote that is no longer needed by then costs no signature check.
        """
        self._queue.append(Frame(raw, peer, heard))

    def post(self, event: events.Event) -> None:
        """Take an event of the shell's own."""
        self._queue.append(event)

    def run(self) -> None:
        """Take turns until nothing waits. Raises Halted, StorageFailure."""
        self.turn()
        while self.waiting:
            self.turn()

    @property
    def waiting(self) -> bool:
        """Whether there is something for another turn."""
        return bool(self._queue)

    def close(self) -> None:
        """Write what waits for the next transaction, and let go of the disk's pages."""
        self._log.commit()
        self._pins.close()

    # -- one turn

    def turn(self) -> None:
        """Act on all that waits now. Raises Halted, StorageFailure."""
        now = self._clock.now()
        if self.wake_at is not None and self.wake_at <= now.mono:
            self._queue.append(events.Tick())
        outputs = [self._step(event, now) for event in self._drain()]
        if outputs:
            outputs.append(self._step(events.TurnEnded(), now))
            self._persist(outputs)
            for output in outputs:
                self._carry_out(output)
            self._core_wakes = outputs[-1].wake_at
        self._server.work(self.counters)
        wishes = (self._core_wakes, self._server.wake_at)
        self.wake_at = min((wish for wish in wishes if wish is not None), default=None)

    def _drain(self) -> Iterator[events.Event]:
        """What waits, each frame opened only after all before it were stepped."""
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            event = self._open(item) if isinstance(item, Frame) else item
            if event is not None:
                yield event

    def _open(self, frame: Frame) -> events.Event | None:
        try:
            event = self.authenticator.open(frame.raw, frame.peer)
        except Rejected as rejected:
            self.counters[str(rejected)] += 1
            return None
        if frame.heard is not None:
            frame.heard(event)
        return event

    def _step(self, event: events.Event, now: Instant) -> Output:
        return self.core.step(event, now)

    def _persist(self, outputs: list[Output]) -> None:
        """Durable before send (R39); what no message depends on waits for the next transaction."""
        for output in outputs:
            self._log.add(output.persist)
        if any(output.own or output.sends for output in outputs):
            self._log.commit()

    def _carry_out(self, output: Output) -> None:
        for message in output.own:
            self._queue.append(events.OwnDurable(message))
        for send in output.sends:
            self._send(send)
        for execute in output.execute:
            self._execute(execute)
        for command in output.transfer:
            self._transfer(command)
        for answer in output.answers:
            self._answer(answer)
        for rejection in output.rejections:
            self.counters[rejection.reason] += 1
        for note in output.notes:
            self._observer(note)
        self.counters["evidence"] += len(output.evidence)
        if output.show_state is not None:
            pinned = self._pins.use(output.show_state, self._clock.now().mono)
            for note in show(pinned, output.show_state, self._folder):
                self._observer(note)
        if output.halt:
            raise Halted(output.halt)

    def _send(self, send: Send) -> None:
        if send.to is None:
            self._transport.broadcast(send.packet)
        elif send.to != self._context.id:
            self._transport.send(send.to, send.packet)

    # -- the application

    def _execute(self, command: Execute) -> None:
        content = command.content
        execution = self.executor.execute(command.seq, content)
        summary = self._checkpoint() if command.checkpoint else None
        self._queue.append(
            events.Executed(command.seq, summary, execution.sessions, self.executor.next_deadline())
        )
        self._replies.batch(command.view, command.seq, execution.leaves)
        self._server.executed()

    def _checkpoint(self) -> StateSummary:
        """Flush the state here, and nowhere else: a restarted replica has a checkpoint to serve."""
        summary = self.store.flush()
        self._pins.pin(self.store.pin(), self._clock.now().mono)
        return summary

    def _transfer(self, command: BeginTransfer | InstallNodes | FinishTransfer) -> None:
        if isinstance(command, BeginTransfer):
            self._pins.close()  # or no page that is replaced could be used again
            self._installer.begin(command.summary)
        elif isinstance(command, InstallNodes):
            self._queue.append(self._installer.install(command.nodes, command.peer))
        else:
            self._queue.append(self._finish_transfer())

    def _finish_transfer(self) -> events.Event:
        if not self.store.finish_transfer():
            return events.TransferFailed()
        self._pins.pin(self.store.pin(), self._clock.now().mono)
        self.executor.reload()
        return events.StateInstalled(
            self.store.summary(), self.executor.session_facts(), self.executor.next_deadline()
        )

    # -- answers

    def _answer(self, answer: Answer) -> None:
        if isinstance(answer, ResendReply):
            self._resend(answer)
        elif isinstance(answer, AnswerRead):
            self._read(answer)
        elif isinstance(answer, AnswerStatus):
            self._replies.status(answer.query, self.report())
        elif isinstance(answer, AnswerState):
            proofs = self.core.checkpoints.proofs
            if not self._state_queries.answer(answer.query, proofs, self._clock.now().mono):
                self.counters["state-query-budget"] += 1
        else:
            self._server.ask(answer.fetch)

    def _read(self, answer: AnswerRead) -> None:
        """Answer a fast read, unless its client has read too much lately (R43)."""
        client, now = answer.read.client, self._clock.now().mono
        refused = answer.refused or not self._reading.spend(client, 1, now)
        results = None if refused else self.executor.query(answer.read.operations)
        if not refused:
            self._reading.charge(client, self.executor.reads)
        self._replies.read(answer.read, self.store.seq, results)

    def _resend(self, answer: ResendReply) -> None:
        leaf = self.executor.cached(answer.request, answer.digest)
        if leaf is not None:
            self._replies.batch(self.core.views.view, self.store.seq, (leaf,))

    def report(self) -> bytes:
        """What this replica says of itself, as JSON."""
        return report(
            self._context.id,
            self.core,
            state_bytes=self.store.application.size.most,
            max_state_bytes=self._context.parameters.max_state_bytes,
            log_commits=self._log.commits,
            verifications=self.authenticator.verifications,
            scrubbed=self.scrubbed,
            counters=self.counters,
        )
