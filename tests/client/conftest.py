"""A cluster's keys and configuration, and replies as its replicas would sign them."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from client.session import ClientSession
from client.ticket import Completion, Output, Ticket
from crypto.merkle import MerkleTree
from crypto.signing import Ed25519Signer, Ed25519Verifier
from network.connection import Connection
from network.limits import Limits
from network.listener import Listener, listen
from pbft.codec import (
    SIGNING_DOMAIN,
    decode_body,
    decode_packet,
    encode,
    encode_packet,
    reply_leaf,
    request_digest,
    signing_input,
)
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.core.quorum import Quorum
from pbft.messages import (
    EXECUTED,
    OK,
    BatchReplies,
    Body,
    Envelope,
    OperationResult,
    Read,
    ReadReply,
    Reply,
    ReplyLeaf,
    Request,
    StatusQuery,
    StatusReport,
)

START = 1_700_000_000_000_000  # µs since 1970


def ok(*values: bytes) -> tuple[OperationResult, ...]:
    return tuple(OperationResult(OK, value) for value in values)


def echo(operations: tuple[bytes, ...]) -> tuple[OperationResult, ...]:
    return ok(*(b"did " + operation for operation in operations))


class Cluster:
    """The keys of `n` replicas and one client, and what they can sign."""

    def __init__(
        self, n: int = 4, parameters: Parameters | None = None, ports: list[int] | None = None
    ) -> None:
        self.signers = [Ed25519Signer(bytes([10 + i]) * 32) for i in range(n)]
        self.client = Ed25519Signer(b"\x07" * 32)
        self.quorum = Quorum(n)
        self.config = ClusterConfig(
            replicas=tuple(
                ReplicaInfo(i, "127.0.0.1", ports[i] if ports else 9000 + i, signer.public_key)
                for i, signer in enumerate(self.signers)
            ),
            clients=(ClientInfo("client-0", self.client.public_key),),
            parameters=parameters or Parameters(),
        )

    def session(self, seed: int = 1) -> ClientSession:
        return ClientSession(self.config, self.client, Ed25519Verifier(), seed)

    def seal(self, replica: int, body: Body, *, key_of: int | None = None) -> Envelope:
        raw = encode(body)
        signer = self.signers[replica if key_of is None else key_of]
        message = signing_input(self.config.cluster_id, raw)
        return Envelope(raw, signer.sign(SIGNING_DOMAIN, message))

    def leaf(
        self,
        request: Envelope,
        results: tuple[OperationResult, ...] | None = None,
        status: int = EXECUTED,
        seq: int = 1,
    ) -> ReplyLeaf:
        body = decode_body(request.body)
        assert isinstance(body, Request)
        if results is None:
            results = echo(body.operations) if status == EXECUTED else ()
        digest = request_digest(request)
        where = seq if status == EXECUTED else 0
        return ReplyLeaf(body.client, body.session, body.bundle, digest, status, results, where)

    def reply(
        self,
        replica: int,
        leaf: ReplyLeaf,
        *,
        view: int = 0,
        seq: int = 1,
        key_of: int | None = None,
        beside: tuple[bytes, ...] = (b"a leaf of another client",),
    ) -> Reply:
        """`leaf` in a tree with others, signed by `replica` (or with the key of `key_of`)."""
        tree = MerkleTree([*beside, reply_leaf(leaf)])
        header = BatchReplies(replica, view, seq, tree.root)
        sealed = self.seal(replica, header, key_of=key_of)
        return Reply(sealed, len(beside), tree.path(len(beside)), leaf)

    def read_reply(
        self,
        replica: int,
        read: Envelope,
        results: tuple[OperationResult, ...] | None = None,
        *,
        refused: bool = False,
        seq: int = 1,
        key_of: int | None = None,
    ) -> bytes:
        body = decode_body(read.body)
        assert isinstance(body, Read)
        if results is None:
            results = () if refused else echo(body.operations)
        answer = ReadReply(replica, body.client, body.nonce, refused, seq, results)
        return encode_packet(self.seal(replica, answer, key_of=key_of))


@dataclass
class Driver:
    """A session with its clock, and a record of what it has sent and completed."""

    cluster: Cluster
    session: ClientSession
    now: int = START
    sent: list[tuple[int, Envelope]] = field(default_factory=list)
    completions: dict[Ticket, Completion] = field(default_factory=dict)
    wake_at: int | None = None

    def poll(self, after: int = 0) -> Output:
        """Let `after` µs pass."""
        self.now += after
        output = self.session.poll(self.now)
        for replica, packet in output.sends:
            envelope = decode_packet(packet)
            assert isinstance(envelope, Envelope)
            self.sent.append((replica, envelope))
        for completion in output.completions:
            assert completion.ticket not in self.completions
            self.completions[completion.ticket] = completion
        self.wake_at = output.wake_at
        return output

    def take(self) -> list[tuple[int, Envelope]]:
        """What was sent since the last call."""
        self.poll()
        taken, self.sent = self.sent, []
        return taken

    def take_requests(self) -> list[Envelope]:
        """The distinct requests among what was sent, in order."""
        seen: dict[Envelope, None] = {}
        for _, envelope in self.take():
            if isinstance(decode_body(envelope.body), Request):
                seen[envelope] = None
        return list(seen)

    def request(self, envelope: Envelope) -> Request:
        body = decode_body(envelope.body)
        assert isinstance(body, Request)
        return body

    def deliver(self, replica: int, reply: Reply) -> None:
        self.session.receive(replica, encode_packet(reply))
        self.poll()

    def agree(
        self,
        request: Envelope,
        results: tuple[OperationResult, ...] | None = None,
        status: int = EXECUTED,
        *,
        view: int = 0,
        replicas: tuple[int, ...] = (1, 2, 3, 4, 5, 6),
    ) -> None:
        """The first w of `replicas` answer `request` alike."""
        leaf = self.cluster.leaf(request, results, status)
        for replica in replicas[: self.cluster.quorum.w]:
            self.deliver(replica, self.cluster.reply(replica, leaf, view=view))

    def opened(self) -> "Driver":
        """Submit an operation, have the session opened and the operation answered."""
        ticket = self.session.submit(b"first")
        (opening,) = self.take_requests()
        self.agree(opening)
        (first,) = self.take_requests()
        self.agree(first)
        assert self.result(ticket) == b"did first"
        return self

    def result(self, ticket: Ticket) -> object:
        """What `ticket` was completed with, None so far."""
        completion = self.completions.get(ticket)
        return None if completion is None else completion.result


@pytest.fixture(scope="session")
def make_cluster() -> Callable[..., Cluster]:
    return Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="session")
def make_driver() -> Callable[..., Driver]:
    def make(cluster: Cluster, seed: int = 1) -> Driver:
        return Driver(cluster, cluster.session(seed))

    return make


@pytest.fixture
def driver(cluster: Cluster) -> Driver:
    """A session that is open and idle."""
    return Driver(cluster, cluster.session()).opened()


class FakeReplica:
    """Signs a reply to every request that its cluster has executed, over a real socket."""

    def __init__(self, cluster: "FakeCluster", replica: int) -> None:
        self.cluster = cluster
        self.replica = replica
        self.connections: list[Connection] = []

    def on_open(self, connection: Connection) -> None:
        self.connections.append(connection)

    def on_close(self, connection: Connection, reason: str) -> None:
        self.connections.remove(connection)

    def on_frame(self, connection: Connection, payload: bytes) -> None:
        self.cluster.received(self.replica, payload)

    def send(self, packet: bytes) -> None:
        for connection in self.connections:
            connection.send(packet)


class FakeCluster:
    """Replicas that execute what the primary, 0, gets; those in `liars` sign wrong results."""

    def __init__(self, keys: Cluster) -> None:
        self.keys = keys
        self.replicas = [FakeReplica(self, i) for i in range(len(keys.signers))]
        self.listeners: dict[int, Listener] = {}
        self.liars: tuple[int, ...] = ()
        self.silent: tuple[int, ...] = ()
        self.answering = asyncio.Event()
        self.answering.set()
        self.arrived = asyncio.Event()
        self.executed: dict[Envelope, Request] = {}
        self.application: Callable[[bytes], bytes] = lambda operation: b"did " + operation

    async def start(self, replica: int) -> None:
        config = self.keys.config
        self.listeners[replica] = await listen(
            "127.0.0.1",
            config.replicas[replica].port,
            self.keys.signers[replica],
            config.cluster_id,
            lambda key: key in config.client_keys(),
            self.replicas[replica],
            Limits(),
            Counter(),
        )

    async def stop(self, replica: int) -> None:
        listener = self.listeners.pop(replica)
        listener.close()
        await listener.wait_closed()

    async def __aenter__(self) -> "FakeCluster":
        for replica in range(len(self.replicas)):
            await self.start(replica)
        return self

    async def __aexit__(self, *_: object) -> None:
        for replica in list(self.listeners):
            await self.stop(replica)

    def received(self, replica: int, payload: bytes) -> None:
        envelope = decode_packet(payload)
        assert isinstance(envelope, Envelope)
        body = decode_body(envelope.body)
        if isinstance(body, Request):
            self.executed[envelope] = body
            self.arrived.set()
            if self.answering.is_set():
                self.answer(envelope)
        elif replica not in self.silent:
            self.answer_at_once(replica, envelope, body)

    def answer_at_once(self, replica: int, envelope: Envelope, body: Body) -> None:
        if isinstance(body, Read):
            results = self.results(replica, body.operations)
            self.replicas[replica].send(self.keys.read_reply(replica, envelope, results))
        else:
            assert isinstance(body, StatusQuery)
            text = b"[1, 2" if replica in self.liars else b'{"replica": %d}' % replica
            report = StatusReport(replica, body.client, body.nonce, text)
            self.replicas[replica].send(encode_packet(self.keys.seal(replica, report)))

    def answer(self, request: Envelope) -> None:
        """All replicas that talk send their replies to `request`."""
        operations = self.executed[request].operations
        for replica in range(len(self.replicas)):
            if replica not in self.silent:
                leaf = self.keys.leaf(request, self.results(replica, operations))
                self.replicas[replica].send(encode_packet(self.keys.reply(replica, leaf)))

    def results(self, replica: int, operations: tuple[bytes, ...]) -> tuple[OperationResult, ...]:
        if replica in self.liars:
            return ok(*(b"lie" for _ in operations))
        return ok(*map(self.application, operations))

    @property
    def operations(self) -> list[bytes]:
        return [each for body in self.executed.values() for each in body.operations]


@pytest.fixture
def fake_cluster() -> FakeCluster:
    """Not yet started; its ports were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return FakeCluster(Cluster(ports=ports))
