"""A state with its certificate, and replicas that show it to clients as they ship."""

import asyncio
from collections.abc import Callable

from msgspec import structs

from client.errors import DeadlineExceeded
from client.proofs import Proven, prove
from crypto.signing import Ed25519Signer
from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import encode as encode_operation
from pbft.apps.state_machine import Context as Applying
from pbft.codec import (
    SIGNING_DOMAIN,
    checkpoint_digest,
    decode_body,
    encode,
    signing_input,
)
from pbft.config import ClientInfo, ClusterConfig, ReplicaInfo
from pbft.core.context import Context
from pbft.messages import Body, Checkpoint, Envelope, Proof, StateAnswer, StateQuery
from pbft.node.state_queries import StateQueries
from pbft.node.state_sync import PinnedCheckpoints
from pbft.proofs import MAP, StateProof
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

Twist = Callable[[StateAnswer], StateAnswer | None]
"""What a replica says instead; None: nothing."""


def lie(answer: StateAnswer) -> StateAnswer:
    """Other values than there are."""
    return structs.replace(
        answer,
        nodes=tuple(
            structs.replace(node, entries=tuple((key, b"lie") for key, _ in node.entries))
            for node in answer.nodes
        ),
    )


class Answers:
    """A transport that keeps the answers to clients."""

    def __init__(self) -> None:
        self.said: list[StateAnswer] = []

    def answer(self, _client: bytes, _nonce: int, packet: Envelope) -> None:
        self.said.append(decode_body(packet.body))

    def send(self, *_: object) -> None:
        raise AssertionError("clients are answered, not replicas")


class Notary:
    """The four replicas of one cluster, all in one state."""

    def __init__(self) -> None:
        self.signers = [Ed25519Signer(bytes([i + 1]) * 32) for i in range(4)]
        self.client = Ed25519Signer(b"c" * 32)
        self.config = ClusterConfig(
            tuple(ReplicaInfo(i, "test", i + 1, s.public_key) for i, s in enumerate(self.signers)),
            (ClientInfo("client-0", self.client.public_key),),
        )
        self.store = StateStore(MemoryDatabase(STATE_TABLES))
        self.transport = Answers()
        context = Context(self.config, 0, self.signers[0])
        self.pins = PinnedCheckpoints()
        self.queries = StateQueries(context, self.transport, self.pins)
        self.proofs: dict[int, Proof] = {}
        self.now = 0
        self.twists: dict[int, Twist] = {}
        self.asked: list[tuple[int, int]] = []

    # -- the state

    def put(self, content: dict[bytes, bytes | None]) -> None:
        """One batch of changes to the application's map."""
        self.store.begin_batch(self.store.seq + 1, self.store.time + 1_000_000)
        for key, value in content.items():
            if value is None:
                self.store.application.delete(key)
            else:
                self.store.application.put(key, value)

    def do(self, *operations: object) -> None:
        """One batch of operations of the key-value store."""
        self.store.begin_batch(self.store.seq + 1, self.store.time + 1_000_000)
        context = Applying(self.store.time, b"c" * 32, 1, self.store.seq)
        for operation in operations:
            KeyValueStore().apply(self.store.application, encode_operation(operation), context)

    def certify(self, signers: tuple[int, ...] = (0, 1, 3)) -> "Notary":
        """A stable checkpoint, here."""
        summary = self.store.flush()
        self.pins.pin(self.store.pin(), 0)
        digest = checkpoint_digest(summary)
        self.proofs[summary.seq] = tuple(
            self.sign(Checkpoint(i, summary.seq, digest)) for i in signers
        )
        return self

    def sign(self, body: Body, by: int | None = None) -> Envelope:
        """`body` signed by the replica that it names, or by another one."""
        raw = encode(body)
        signer = self.signers[body.replica if by is None else by]  # type: ignore[attr-defined]
        message = signing_input(self.config.cluster_id, raw)
        return Envelope(raw, signer.sign(SIGNING_DOMAIN, message))

    # -- what clients do

    def query(self, seq: int, *paths: bytes, client: bytes | None = None) -> StateAnswer | None:
        """The honest answer, or None where the client has been shown too much."""
        query = StateQuery(client or self.client.public_key, 7, seq, paths)
        if not self.queries.answer(query, self.proofs, self.now):
            return None
        return self.transport.said.pop()

    async def ask_state(
        self, replica: int, seq: int, paths: tuple[bytes, ...], deadline: float
    ) -> StateAnswer:
        """The port of `client.proofs`."""
        self.asked.append((replica, seq))
        answer = self.query(seq, *paths)
        twist = self.twists.get(replica)
        if answer is not None and twist is not None:
            answer = twist(answer)
        if answer is None:
            await asyncio.sleep(0)
            raise DeadlineExceeded("no outcome within the deadline", sent=False)
        return structs.replace(answer, replica=replica)

    def prove(
        self, key: bytes, subject: int = MAP, *, min_seq: int = 0, deadline: float = 5.0
    ) -> Proven:
        """Ask the replicas from 0 on."""
        return asyncio.run(
            prove(
                self,
                self.config,
                key,
                subject,
                min_seq=min_seq,
                deadline=deadline,
                replicas=range(4),
            )
        )

    def proof(self, key: bytes, subject: int = MAP) -> StateProof:
        """The proof that a client gets."""
        return self.prove(key, subject).proof
