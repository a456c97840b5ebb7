"""A whole node on a disk of memory, attacked through the door that its shell uses."""

from collections import Counter

from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.apps.kv import KeyValueStore
from pbft.codec import SIGNING_DOMAIN, encode, encode_packet, signing_input
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.core import events
from pbft.core.context import Context, Instant
from pbft.core.records import TABLES
from pbft.messages import (
    Batch,
    BatchBody,
    BatchReplies,
    Body,
    Checkpoint,
    CheckpointProof,
    Commit,
    CommittedBatch,
    Envelope,
    FetchBatch,
    FetchBatches,
    FetchState,
    Incarnation,
    IncarnationSeen,
    NewView,
    OperationResult,
    Packet,
    Prepare,
    PreparedProof,
    PrePrepare,
    Proposal,
    Read,
    ReadReply,
    Recovery,
    Reply,
    ReplyLeaf,
    Request,
    SlotReport,
    StateAnswer,
    StateNodes,
    StateQuery,
    StateSummary,
    Status,
    StatusQuery,
    StatusReport,
    Suspect,
    TreeNode,
    ViewChange,
)
from pbft.node.log_store import LogStore
from pbft.node.turn import Node
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

START = Instant(1_000_000, 1_700_000_000_000_000)
D = b"d" * 32
SMALL = Parameters(checkpoint_interval=4, window=8)


class Wire:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[object, Packet]] = []

    def send(self, to: int, packet: Packet) -> None:
        self.sent.append((to, packet))

    def broadcast(self, packet: Packet) -> None:
        self.sent.append((None, packet))

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        self.sent.append((client, packet))

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        self.sent.append((client, packet))


class Target:
    """Replica 1 of n, in view 0, with two clients."""

    def __init__(self, n: int = 4, parameters: Parameters = SMALL) -> None:
        self.signers = [Ed25519Signer(bytes([i + 1]) * 32) for i in range(n)]
        self.clients = [Ed25519Signer(bytes([i + 101]) * 32) for i in range(2)]
        self.config = ClusterConfig(
            tuple(ReplicaInfo(i, "test", i + 1, s.public_key) for i, s in enumerate(self.signers)),
            tuple(ClientInfo(f"client-{i}", s.public_key) for i, s in enumerate(self.clients)),
            parameters,
        )
        self.wire = Wire()
        self.counters: Counter[str] = Counter()
        self.time = START
        self.node = Node(
            Context(self.config, 1, self.signers[1]),
            KeyValueStore(),
            LogStore(MemoryDatabase(TABLES)),
            StateStore(MemoryDatabase(STATE_TABLES)),
            self,
            self.wire,
            Ed25519Verifier(),
            lambda _note: None,
            self.counters,
        )
        self.node.start(7)

    def now(self) -> Instant:
        """The Clock port."""
        return self.time

    @property
    def verifications(self) -> int:
        """How many signatures were checked so far."""
        return self.node.authenticator.verifications

    # -- the door

    def take(self, raw: bytes, peer: int | bytes) -> events.Event | None:
        """Give the node a frame and a turn: the event that it made of it."""
        heard: list[events.Event] = []
        self.node.receive(raw, peer, heard.append)
        self.node.run()
        return heard[0] if heard else None

    def refuse(self, raw: bytes, peer: int | bytes, verifications: int = 0) -> str:
        """Give it a frame that it must drop: the one reason that was counted, once."""
        before, checked = Counter(self.counters), self.verifications
        sent = len(self.wire.sent)
        assert self.take(raw, peer) is None
        assert self.verifications - checked == verifications
        assert self.wire.sent[sent:] == []
        ((reason, count),) = (self.counters - before).items()
        assert count == 1
        return reason

    # -- keys

    def sign(self, body: Body, cluster: bytes | None = None) -> Envelope:
        """`body` signed by whoever it says it is from."""
        return self.seal(self.signer_of(body), encode(body), cluster)

    def seal(self, signer: Ed25519Signer, raw: bytes, cluster: bytes | None = None) -> Envelope:
        """Any bytes, properly signed."""
        message = signing_input(cluster or self.config.cluster_id, raw)
        return Envelope(raw, signer.sign(SIGNING_DOMAIN, message))

    def signer_of(self, body: Body) -> Ed25519Signer:
        """Who must sign `body`."""
        replica = getattr(body, "replica", None)
        return self.clients[0] if replica is None else self.signers[replica]

    def peer_of(self, body: Body) -> int | bytes:
        """Over whose channel `body` comes."""
        replica = getattr(body, "replica", None)
        return self.clients[0].public_key if replica is None else replica

    # -- one valid example of everything

    def bodies(self) -> list[Body]:
        """Of every type of body one that is as it should be."""
        me = self.clients[0].public_key
        summary = StateSummary(4, 5, D, D)
        return [
            PrePrepare(0, 0, 1, D),
            Prepare(2, 0, 1, D),
            Commit(2, 0, 1, D),
            Checkpoint(2, 4, D),
            self.view_change(2),
            self.new_view(),
            Suspect(2, 0),
            Status(2, 0, True, 3, 0, (SlotReport(4, True, False),)),
            FetchBatches(2, 1, 9),
            FetchBatch(2, 1, D),
            FetchState(2, 4, (b"\x00", b"\x01\x02")),
            StateNodes(2, summary, (TreeNode(b"\x00", (D,) * 16, ()),)),
            Incarnation(2, 1, 5, True),
            IncarnationSeen(2, 1, 7, 0, 0, 0, 0, 0, ()),
            Recovery(2, 1, 0, 0),
            Request(me, 1, 1, 0, False, (b"op",)),
            Read(me, 1, 0, (b"op",)),
            BatchReplies(2, 0, 1, D),
            ReadReply(2, me, 1, False, 3, (OperationResult(0, b"v"),)),
            StatusQuery(me, 1),
            StatusReport(2, me, 1, b"{}"),
            StateQuery(me, 1, 0, (b"\x00", b"\x00\x02")),
            StateAnswer(
                2, me, 1, summary, self.checkpoints(range(3)), (TreeNode(b"\x00", (), ()),)
            ),
        ]

    def packets(self) -> list[Packet]:
        """Of every kind of packet one that is as it should be."""
        request = self.sign(Request(self.clients[0].public_key, 1, 0, 0, False, ()))
        batch = Batch(START.wall, (request,))
        commits = tuple(self.sign(Commit(i, 0, 1, D)) for i in range(3))
        leaf = ReplyLeaf(self.clients[0].public_key, 1, 1, D, 0, (OperationResult(0, b"v"),), 1)
        return [
            self.sign(Prepare(2, 0, 1, D)),
            Proposal(self.sign(PrePrepare(0, 0, 1, D)), batch),
            BatchBody(1, batch),
            CommittedBatch(commits, batch),
            Reply(self.sign(BatchReplies(2, 0, 1, D)), 0, (D,), leaf),
            CheckpointProof(self.checkpoints(range(3))),
        ]

    def checkpoints(self, replicas: range | tuple[int, ...], seq: int = 4) -> tuple[Envelope, ...]:
        """Matching CHECKPOINTs."""
        return tuple(self.sign(Checkpoint(i, seq, D)) for i in replicas)

    def prepared(self, seq: int = 5, backups: tuple[int, ...] = (1, 2)) -> PreparedProof:
        """A prepared certificate of view 0."""
        votes = tuple(self.sign(Prepare(i, 0, seq, D)) for i in backups)
        return PreparedProof(self.sign(PrePrepare(0, 0, seq, D)), votes)

    def view_change(self, replica: int, view: int = 2) -> ViewChange:
        """A VIEW-CHANGE with a stable checkpoint and one prepared certificate."""
        return ViewChange(replica, view, 4, D, self.checkpoints(range(3)), (self.prepared(),))

    def new_view(self) -> NewView:
        """The NEW-VIEW of replica 2 for view 2."""
        changes = tuple(self.sign(self.view_change(i)) for i in (0, 2, 3))
        return NewView(2, 2, changes, (self.sign(PrePrepare(2, 2, 5, D)),))


def frame(envelope: Packet) -> bytes:
    """The bytes of one frame."""
    return encode_packet(envelope)
