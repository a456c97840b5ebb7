"""Cores without shells: hand-made messages in, `Output`s out, on a clock that the test moves."""

from collections import deque
from collections.abc import Callable

import msgspec

from crypto.digests import digest
from pbft.codec import SIGNING_DOMAIN, decode_body, signing_input
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.core import events
from pbft.core.batches import BatchContent, content_of
from pbft.core.context import Context, Instant
from pbft.core.invariants import Invariants
from pbft.core.output import Output, Send
from pbft.core.records import Restored, restore
from pbft.core.replica import Foundation, Replica
from pbft.core.session_facts import SessionView
from pbft.messages import (
    Batch,
    BatchBody,
    Body,
    Checkpoint,
    CheckpointProof,
    Commit,
    CommittedBatch,
    Envelope,
    IncarnationSeen,
    Packet,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proposal,
    Request,
    SlotReport,
    StateSummary,
    Status,
    Verified,
)
from pbft.simulation.signing import KeyedHashRegistry
from pbft.simulation.trace import describe

START = Instant(1_000_000, 1_700_000_000_000_000)
SMALL = Parameters(checkpoint_interval=4, window=8, pipeline_depth=2, client_window=8)


def seen(
    replica: int,
    about: int,
    nonce: int,
    highest: int,
    *,
    voted: tuple[int, int] = (0, 0),
    at: tuple[int, int] = (0, 0),
    starts: tuple[Envelope, ...] = (),
) -> IncarnationSeen:
    """The answer of `replica`, which is at (view, seq), about one that has `voted` up to such."""
    return IncarnationSeen(replica, about, nonce, highest, *voted, *at, starts)


def _lose_nothing(_sender: int, _receiver: int, _packet: Packet) -> bool:
    return False


class Cores:
    """n cores that trust each other's signatures; nothing moves unless the test says so."""

    def __init__(self, n: int = 4, parameters: Parameters = SMALL, clients: int = 3) -> None:
        self.registry = KeyedHashRegistry()
        self.signers = [self.registry.signer(b"replica %d" % i) for i in range(n)]
        self.client_signers = [self.registry.signer(b"client %d" % i) for i in range(clients)]
        self.config = ClusterConfig(
            tuple(ReplicaInfo(i, "test", i + 1, s.public_key) for i, s in enumerate(self.signers)),
            tuple(
                ClientInfo(f"client-{i}", s.public_key) for i, s in enumerate(self.client_signers)
            ),
            parameters,
        )
        self.contexts = [Context(self.config, i, signer) for i, signer in enumerate(self.signers)]
        self.now = START
        self.disks: list[dict[tuple[str, bytes], bytes]] = [{} for _ in range(n)]
        self.states = [0] * n
        self.outputs: list[list[Output]] = [[] for _ in range(n)]
        self.invariants = [Invariants() for _ in range(n)]
        self.trace: list[str] = []
        self.cores: list[Replica] = []
        for i in range(n):
            self.cores.append(self._fresh(i))
            self.confirm(i)

    # -- lives

    def _fresh(self, i: int, complete: bool = True, summary: StateSummary | None = None) -> Replica:
        records = ((table, key, value) for (table, key), value in sorted(self.disks[i].items()))
        restored = restore(records) if self.disks[i] else Restored()
        executed = self.states[i] if complete else 0
        foundation = Foundation(restored, executed, complete, summary=summary)
        return Replica(self.contexts[i], foundation, self.now)

    def restart(
        self, i: int, complete: bool = True, summary: StateSummary | None = None
    ) -> Replica:
        """Start replica `i` again on what its disk holds; it may vote at once.

        Without a `complete` state it died in the middle of a state transfer. `summary` is that of
        a state which was flushed as a checkpoint.
        """
        self.cores[i] = self._fresh(i, complete, summary)
        self.invariants[i].restarted()
        self.step(i, events.Started(99))
        self.confirm(i)
        return self.cores[i]

    def confirm(self, i: int) -> None:
        """Skip the round of INCARNATIONs (R41), which has tests of its own."""
        self.cores[i].gate.release("unconfirmed")

    def pass_time(self, milliseconds: int) -> None:
        """Move the clock."""
        step = milliseconds * 1000
        self.now = Instant(self.now.mono + step, self.now.wall + step)

    # -- steps

    def step(self, i: int, event: events.Event) -> Output:
        """One step of one core; what it persists is on its disk afterwards."""
        output = self.cores[i].step(event, self.now)
        for write in output.persist:
            if write.value is None:
                self.disks[i].pop((write.table, write.key), None)
            else:
                self.disks[i][write.table, write.key] = write.value
        self.outputs[i].append(output)
        self.invariants[i].check(self.cores[i])
        return output

    def receive(self, i: int, body: Body, signer: int | None = None) -> Output:
        """Let core `i` receive `body` from its sender's own channel."""
        sender = body.replica if signer is None else signer  # type: ignore[attr-defined]
        return self.step(i, events.Received(self.sign(sender, body), sender))

    def tick(self, i: int, milliseconds: int = 0) -> Output:
        """Let time pass, and core `i` notice."""
        self.pass_time(milliseconds)
        return self.step(i, events.Tick())

    # -- messages

    def sign(self, i: int, body: Body) -> Verified:
        """`body` signed by replica `i`."""
        return self.contexts[i].sign(body)

    def envelope(self, i: int, body: Body) -> Envelope:
        """The envelope of `body` signed by replica `i`."""
        return self.sign(i, body).envelope

    def request(
        self,
        client: int = 0,
        bundle: int = 1,
        session: int = 1,
        operations: tuple[bytes, ...] = (b"op",),
        acknowledged: int = 0,
    ) -> Verified:
        """A client's signed request."""
        signer = self.client_signers[client]
        body = Request(signer.public_key, session, bundle, acknowledged, False, operations)
        raw = msgspec.msgpack.encode(body)
        signature = signer.sign(SIGNING_DOMAIN, signing_input(self.config.cluster_id, raw))
        return Verified(body=body, envelope=Envelope(raw, signature))

    def ask(self, i: int, request: Verified) -> Output:
        """Let core `i` receive a request from its client."""
        return self.step(i, events.Received(request, request.body.client))

    def content(self, *requests: Verified, time: int | None = None) -> BatchContent:
        """A batch of these requests, proposed now or at `time` (µs)."""
        proposed = self.now.wall if time is None else time
        return content_of(Batch(proposed, tuple(request.envelope for request in requests)))

    def proposal(self, content: BatchContent, seq: int, view: int = 0) -> events.ProposalReceived:
        """The PRE-PREPARE of the view's primary for `content`."""
        primary = view % len(self.cores)
        body = PrePrepare(primary, view, seq, content.digest)
        return events.ProposalReceived(self.sign(primary, body), content)

    def prepared_proof(self, content: BatchContent, seq: int, view: int = 0) -> PreparedProof:
        """A prepared certificate: the PRE-PREPARE and q-1 PREPAREs of backups."""
        quorum = self.contexts[0].quorum
        primary = view % quorum.n
        backups = [i for i in range(quorum.n) if i != primary][: quorum.q - 1]
        return PreparedProof(
            self.envelope(primary, PrePrepare(primary, view, seq, content.digest)),
            tuple(self.envelope(i, Prepare(i, view, seq, content.digest)) for i in backups),
        )

    def checkpoint_proof(self, seq: int, state: bytes, count: int | None = None) -> tuple:
        """Matching CHECKPOINTs of the first `count` (default q) replicas."""
        many = self.contexts[0].quorum.q if count is None else count
        return tuple(self.envelope(i, Checkpoint(i, seq, state)) for i in range(many))

    def commit_votes(self, content: BatchContent, seq: int, view: int = 0) -> tuple:
        """COMMITs of q replicas."""
        many = self.contexts[0].quorum.q
        return tuple(self.sign(i, Commit(i, view, seq, content.digest)) for i in range(many))

    # -- a perfect network

    def run(self, lose: Callable[[int, int, Packet], bool] = _lose_nothing) -> None:
        """Deliver, execute and count until nothing is left to do; `lose(from, to, packet)` drops.

        What was produced by earlier steps and not yet delivered is delivered now.
        """
        queue: deque[tuple[int, events.Event]] = deque()
        while True:
            for i in range(len(self.cores)):
                outputs, self.outputs[i] = self.outputs[i], []
                for output in outputs:
                    queue.extend(self._consequences(i, output, lose))
            if not queue:
                return
            while queue:
                i, event = queue.popleft()
                self.step(i, event)
            for i in range(len(self.cores)):
                self.step(i, events.TurnEnded())

    def _consequences(
        self, i: int, output: Output, lose: Callable[[int, int, Packet], bool]
    ) -> list[tuple[int, events.Event]]:
        found: list[tuple[int, events.Event]] = [(i, events.OwnDurable(m)) for m in output.own]
        for send in output.sends:
            everybody = [to for to in range(len(self.cores)) if to != i]
            targets = everybody if send.to is None else [send.to]
            kept = [to for to in targets if not lose(i, to, send.packet)]
            self._note(i, send, targets, kept)
            found += [(to, event_of(send.packet, i)) for to in kept]
        for execute in output.execute:
            self.states[i] = execute.seq
            self.trace.append(f"{i}        executes seq={execute.seq}")
            found.append((i, self.executed(execute.seq, execute.content, execute.checkpoint)))
        return found

    def _note(self, i: int, send: Send, targets: list[int], kept: list[int]) -> None:
        to = "*" if send.to is None else str(send.to)
        lost = [target for target in targets if target not in kept]
        losses = f"  (lost to {lost})" if lost else ""
        self.trace.append(f"{i} -> {to}   {describe(send.packet)}{losses}")

    def executed(self, seq: int, content: BatchContent, checkpoint: bool) -> events.Executed:
        """What a shell says after executing a batch: every bundle of it took effect."""
        views = tuple(
            SessionView(r.client, r.session, r.bundle - 1, (r.bundle,)) for r in content.requests
        )
        return events.Executed(seq, summary_of(seq) if checkpoint else None, views, None)


def beat(
    replica: int,
    known: int,
    *,
    view: int = 0,
    active: bool = True,
    stable_seq: int = 0,
    slots: tuple[SlotReport, ...] = (),
) -> Status:
    """A heartbeat."""
    return Status(replica, view, active, known, stable_seq, slots)


def summary_of(seq: int) -> StateSummary:
    """The state that every correct core has after `seq` in these tests."""
    return StateSummary(seq, seq, digest(b"application", b"%d" % seq), digest(b"sessions"))


def event_of(packet: Packet, sender: int) -> events.Event:
    """What authentication would make of an honest packet."""
    if isinstance(packet, Proposal):
        body = decode_body(packet.pre_prepare.body)
        verified = Verified(body=body, envelope=packet.pre_prepare)
        return events.ProposalReceived(verified, content_of(packet.batch))
    if isinstance(packet, BatchBody):
        return events.BatchReceived(packet.seq, content_of(packet.batch), sender)
    if isinstance(packet, CommittedBatch):
        commits = tuple(Verified(body=decode_body(e.body), envelope=e) for e in packet.commits)
        return events.CommittedBatchReceived(commits, content_of(packet.batch), sender)
    if isinstance(packet, CheckpointProof):
        votes = tuple(Verified(body=decode_body(e.body), envelope=e) for e in packet.checkpoints)
        return events.CheckpointProofReceived(votes)
    assert isinstance(packet, Envelope)
    return events.Received(Verified(body=decode_body(packet.body), envelope=packet), sender)


def votes_in(output: Output, kind: type[Body]) -> list[Body]:
    """The bodies of `kind` that an output votes for (to be sent and counted)."""
    return [message.body for message in output.own if isinstance(message.body, kind)]


def sent(output: Output, kind: type[Body]) -> list[tuple[int | None, Body]]:
    """The (receiver, body) pairs of `kind` among the envelopes that an output sends."""
    found = []
    for send in output.sends:
        if isinstance(send.packet, Envelope):
            body = decode_body(send.packet.body)
            if isinstance(body, kind):
                found.append((send.to, body))
    return found


def reasons(output: Output) -> list[str]:
    """Why an output dropped things."""
    return [rejection.reason for rejection in output.rejections]
