"""What must be true of every run: agreement, validity, at most once, durability, equal states."""

from collections import Counter
from collections.abc import Iterable

from pbft.apps.kv_codec import Delete, MalformedOperation, Range, decode_operation
from pbft.codec import batch_digest, decode_body, request_digest
from pbft.core.output import Execute, Note
from pbft.messages import (
    CONFLICT,
    EXECUTED,
    REFUSED,
    SESSION_EXPIRED,
    CommittedBatch,
    Envelope,
    Packet,
    ReadReply,
    Reply,
    ReplyLeaf,
    Request,
    StateSummary,
)
from pbft.simulation.machine import Machine, Observer
from pbft.simulation.promises import Promises
from pbft.simulation.world import World
from pbft.storage.database import Database, reading
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES, TREES, write_entries

Operations = tuple[bytes, ...]
_TAG_AT, _READ_REPLY = 1, 23  # where an encoded body says what it is; see pbft.messages
_STATUSES = {CONFLICT: "conflict", SESSION_EXPIRED: "session-expired"}


class Ledger:
    """Watches every execution on every correct machine.

    It trusts no digest that a node has computed: it looks at the batches' bytes, and at the
    operations that have reached the application.
    """

    def __init__(self) -> None:
        self._batches: dict[int, tuple[bytes, Operations]] = {}
        self._signed: dict[bytes, None] = {}
        self._applied: dict[bytes, int] = {}
        self._bundles: dict[tuple[bytes, int, int], bytes] = {}
        self._acknowledged: dict[bytes, None] = {}
        self._reached: dict[Machine, list[bytes]] = {}
        self._states: dict[int, StateSummary] = {}
        self.failures: list[str] = []

    def client_sent(self, digest: bytes) -> None:
        """A client has signed the request with this digest."""
        self._signed[digest] = None

    def acknowledged(self, operation: bytes) -> None:
        """A client was told that this write is done."""
        self._acknowledged[operation] = None

    def on_apply(self, machine: Machine, operation: bytes) -> None:
        """An operation has reached the application of `machine`."""
        self._reached.setdefault(machine, []).append(operation)

    def on_crash(self, machine: Machine) -> None:
        """What was applied of an unfinished batch is gone with the process; the disk is there."""
        self._reached.pop(machine, None)
        self.check_disk(machine)

    def check_disk(self, machine: Machine) -> None:
        """On disk is the state after exactly one sequence number, or it is marked incomplete."""
        store = StateStore(machine.state_disk)
        if store.transfer_target is None:
            summary = store.summary()
            if _roots(machine.state_disk) != (summary.application_root, summary.sessions_root):
                self.failures.append(f"disk: {machine.endpoint} has no state after any one seq")
            self.on_checkpoint(machine, summary)

    def on_execute(self, machine: Machine, command: Execute) -> None:
        """Agreement: one batch per sequence number; validity: only what clients have signed."""
        operations = tuple(self._reached.pop(machine, ()))
        if not machine.correct:
            return
        seq, batch = command.seq, command.content.batch
        digests = [request_digest(request) for request in batch.requests]
        executed = batch_digest(batch.time, digests), operations
        if seq not in self._batches:
            self._batches[seq] = executed
            self._first_execution(seq, digests, operations)
            self._one_per_bundle(seq, batch.requests, operations)
        elif self._batches[seq][0] != executed[0]:
            self.failures.append(f"agreement: two batches at seq {seq}")
        elif self._batches[seq] != executed:
            self.failures.append(f"agreement: seq {seq} has different effects on two machines")

    def _first_execution(self, seq: int, digests: list[bytes], operations: Operations) -> None:
        if any(digest not in self._signed for digest in digests):
            self.failures.append(f"validity: a request nobody signed at seq {seq}")
        for operation in operations:
            if operation in self._applied and not _may_recur(operation):
                earlier = self._applied[operation]
                self.failures.append(f"at most once: one operation at seq {earlier} and {seq}")
            self._applied[operation] = seq

    def _one_per_bundle(
        self, seq: int, requests: Iterable[Envelope], operations: Operations
    ) -> None:
        """Of different requests with one bundle number at most one has an effect (R15)."""
        for envelope in requests:
            request = decode_body(envelope.body)
            if not isinstance(request, Request) or not set(request.operations) & set(operations):
                continue
            key = request.client, request.session, request.bundle
            if self._bundles.setdefault(key, envelope.body) != envelope.body:
                self.failures.append(f"at most once: two requests of one number at seq {seq}")

    def on_checkpoint(self, machine: Machine, summary: StateSummary) -> None:
        """Equal digests: correct machines at one sequence number hold the same state (R21)."""
        if machine.correct and self._states.setdefault(summary.seq, summary) != summary:
            self.failures.append(f"equal digests: states differ after seq {summary.seq}")

    def check_end(self, machines: list[Machine]) -> None:
        """What only shows at the end: durability, and equal states of all `machines`."""
        self.failures += check_equal_states(machines)
        for machine in machines:
            self.check_disk(machine)
        lost = sum(operation not in self._applied for operation in self._acknowledged)
        if lost:
            self.failures.append(f"durability: {lost} acknowledged writes were never applied")

    @property
    def last(self) -> int:
        """The highest sequence number that any correct machine executed."""
        return max(self._batches, default=0)


def _may_recur(operation: bytes) -> bool:
    """Simulated clients write each value only once; reads and deletions have none."""
    try:
        return isinstance(decode_operation(operation), Range | Delete)
    except MalformedOperation:
        return False


def _roots(database: Database) -> tuple[bytes, ...]:
    """What the maps in `database` digest to, worked out anew from their entries."""
    scratch = MemoryDatabase(STATE_TABLES).begin()
    with reading(database) as reader:
        for tree in TREES:
            write_entries(scratch, tree, dict(reader.scan(tree.entries)))
    return tuple(tree.root(scratch) for tree in TREES)


def check_equal_states(machines: list[Machine]) -> list[str]:
    """Correct machines that have executed equally much hold the same state (R21)."""
    states: dict[int, StateSummary] = {}
    failures = []
    for machine in machines:
        if machine.node is not None and machine.correct:
            summary = machine.node.store.flush()
            if states.setdefault(summary.seq, summary) != summary:
                failures.append(f"equal digests: states differ after seq {summary.seq}")
    return failures


class Witness(Observer):
    """Tells the checkers what the machines do, and counts what happens to correct ones."""

    def __init__(self, world: World) -> None:
        self.ledger = Ledger()
        self.promises = Promises()
        self.counts: Counter[str] = Counter()
        self._world = world

    def on_execute(self, machine: Machine, command: Execute) -> None:
        self._world.record(machine.endpoint, "execute", command.seq, command.content.digest)
        self.ledger.on_execute(machine, command)

    def on_checkpoint(self, machine: Machine, summary: StateSummary) -> None:
        self.ledger.on_checkpoint(machine, summary)

    def on_crash(self, machine: Machine) -> None:
        self.ledger.on_crash(machine)

    def on_forget(self, machine: Machine) -> None:
        self.promises.forgot(machine.replica)

    def on_note(self, machine: Machine, note: Note) -> None:
        if note.event == "memory-no-longer-needed":
            self.promises.recovered(machine.replica)
        if machine.correct:
            self.counts[note.event] += 1

    def on_sent(self, machine: Machine, packet: Packet) -> None:
        if not machine.correct:
            return
        self.promises.sent(machine.replica, packet)
        if isinstance(packet, CommittedBatch):
            self.counts["batch-served"] += 1
        elif isinstance(packet, Reply):
            self._count_reply(packet.leaf)
        elif isinstance(packet, Envelope) and packet.body[_TAG_AT] == _READ_REPLY:
            reply = decode_body(packet.body)
            assert isinstance(reply, ReadReply)
            self.counts["read-refused" if reply.refused else "read-answered"] += 1

    def _count_reply(self, leaf: ReplyLeaf) -> None:
        if leaf.status in _STATUSES:
            self.counts[_STATUSES[leaf.status]] += 1
        elif leaf.status == EXECUTED and any(result.code == REFUSED for result in leaf.results):
            self.counts["quota-refused"] += 1
