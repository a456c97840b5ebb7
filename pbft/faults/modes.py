"""The bundled faulty-node modes: what `--faulty` names, one class each."""

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar

from msgspec import Struct, structs

from crypto.merkle import MerkleTree
from pbft.codec import batch_digest, decode_body, encode, reply_leaf, request_digest
from pbft.core.context import Context
from pbft.messages import (
    Batch,
    BatchReplies,
    Body,
    Envelope,
    NewView,
    OperationResult,
    Packet,
    PrePrepare,
    Proposal,
    ReadReply,
    Reply,
    Request,
    StateAnswer,
    TreeNode,
)
from pbft.node.ports import Transport


class UnknownMode(Exception):
    """`--faulty` names no mode; the text lists those that there are."""


class Mode:
    """Sits between an honest node and its transport.

    How often it misbehaved stands among the node's counters, as `faulty-` and its name. The same
    packet for the same receiver is always twisted in the same way.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    rule: ClassVar[str]

    def __init__(self, context: Context, inner: Transport, counters: Counter[str]) -> None:
        self._context = context
        self._inner = inner
        self._counters = counters

    def send(self, to: int, packet: Packet) -> None:
        """To one replica."""
        if (twisted := self.twist(packet, to)) is not None:
            self._inner.send(to, twisted)

    def broadcast(self, packet: Packet) -> None:
        """To all other replicas, each of which may be told something else."""
        for peer in self._context.peers:
            self.send(peer, packet)

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        """To a client's session."""
        if (twisted := self.twist(packet, None)) is not None:
            self._inner.reply(client, session, twisted)

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        """To a client's question."""
        if (twisted := self.twist(packet, None)) is not None:
            self._inner.answer(client, nonce, twisted)

    def twist(self, packet: Packet, to: int | None) -> Packet | None:
        """What goes out instead of `packet`; None for nothing. `to` is None for clients."""
        raise NotImplementedError(packet, to)

    def _fire(self) -> None:
        self._counters[f"faulty-{self.name}"] += 1

    def _sign(self, body: Body) -> Envelope:
        self._fire()
        return self._context.sign(body).envelope


class Silent(Mode):
    """Sends nothing at all."""

    name = "silent"
    summary = "sends nothing at all"
    rule = "R4"

    def twist(self, _packet: Packet, _to: int | None) -> Packet | None:
        self._fire()
        return None


class Mute(Mode):
    """As primary, proposes nothing and opens no view, but otherwise takes part."""

    name = "mute"
    summary = "as primary, proposes nothing and opens no view"
    rule = "R26"

    def twist(self, packet: Packet, _to: int | None) -> Packet | None:
        opening = isinstance(packet, Envelope) and isinstance(decode_body(packet.body), NewView)
        if isinstance(packet, Proposal) or opening:
            self._fire()
            return None
        return packet


class Lie(Mode):
    """Answers clients with wrong results, properly signed."""

    name = "lie"
    summary = "answers clients with wrong results, properly signed"
    rule = "R13"

    def twist(self, packet: Packet, _to: int | None) -> Packet | None:
        if isinstance(packet, Reply):
            return self._reply(packet)
        if isinstance(packet, Envelope):
            body = decode_body(packet.body)
            if isinstance(body, StateAnswer):
                return self._sign(structs.replace(body, nodes=tuple(map(_wrong_node, body.nodes))))
            if isinstance(body, ReadReply):
                wrong = tuple(map(_wrong, body.results))
                return self._sign(structs.replace(body, refused=False, results=wrong))
        return packet

    def _reply(self, packet: Reply) -> Reply:
        header = decode_body(packet.header.body)
        assert isinstance(header, BatchReplies)
        old = packet.leaf
        wrong = tuple(map(_wrong, old.results))
        leaf = structs.replace(old, results=wrong)
        root = MerkleTree([reply_leaf(leaf)]).root
        signed = self._sign(BatchReplies(header.replica, header.view, header.seq, root))
        return Reply(signed, 0, (), leaf)


def _wrong(result: OperationResult) -> OperationResult:
    return OperationResult(result.code, result.value[::-1] + b"!")


def _wrong_node(node: TreeNode) -> TreeNode:
    entries = tuple((key, value[::-1] + b"!") for key, value in node.entries)
    return structs.replace(node, entries=entries)


class Equivocate(Mode):
    """As primary, proposes another batch to each backup for the same sequence number."""

    name = "equivocate"
    summary = "as primary, proposes another batch to each backup"
    rule = "R2"

    def twist(self, packet: Packet, to: int | None) -> Packet | None:
        if not isinstance(packet, Proposal) or to is None:
            return packet
        batch = Batch(packet.batch.time + to + 1, packet.batch.requests)
        return _proposal(packet, batch, self._sign)


class ForgeRequest(Mode):
    """As primary, puts a request into its batches that the client never signed."""

    name = "forge-request"
    summary = "as primary, proposes requests that no client has signed"
    rule = "R3"

    def twist(self, packet: Packet, _to: int | None) -> Packet | None:
        if not isinstance(packet, Proposal) or not packet.batch.requests:
            return packet
        original = decode_body(packet.batch.requests[0].body)
        assert isinstance(original, Request)
        body = encode(
            Request(
                original.client,
                original.session,
                original.bundle + 1,
                original.acknowledged,
                False,
                (b"forged",),
            )
        )
        forged = Envelope(body, blake2b(body).digest())
        batch = Batch(packet.batch.time, (*packet.batch.requests, forged))
        return _proposal(packet, batch, self._sign)


class BadSignature(Mode):
    """Corrupts every signature that it sends, those of others that it relays included."""

    name = "bad-signature"
    summary = "corrupts every signature that it sends"
    rule = "R7"

    def twist(self, packet: Packet, _to: int | None) -> Packet | None:
        self._fire()
        spoiled: Packet = _spoiled(packet)
        return spoiled


def _spoiled(value: Any) -> Any:
    if isinstance(value, Envelope):
        signature = value.signature
        return Envelope(value.body, bytes([signature[0] ^ 1]) + signature[1:])
    if isinstance(value, tuple):
        return tuple(map(_spoiled, value))
    if isinstance(value, Struct):
        parts = {name: _spoiled(part) for name, part in structs.asdict(value).items()}
        return structs.replace(value, **parts)
    return value


def _proposal(packet: Proposal, batch: Batch, sign: Callable[[Body], Envelope]) -> Proposal:
    body = decode_body(packet.pre_prepare.body)
    assert isinstance(body, PrePrepare)
    digest = batch_digest(batch.time, map(request_digest, batch.requests))
    return Proposal(sign(PrePrepare(body.replica, body.view, body.seq, digest)), batch)


MODES: dict[str, type[Mode]] = {
    mode.name: mode for mode in (Silent, Lie, Equivocate, ForgeRequest, Mute, BadSignature)
}


def check_modes(spec: str) -> list[type[Mode]]:
    """The modes of `lie` or `lie+mute`. Raises UnknownMode."""
    names = spec.split("+")
    for name in names:
        if name not in MODES:
            known = "; ".join(f"{m.name} ({m.summary}: {m.rule})" for m in MODES.values())
            raise UnknownMode(f"there is no faulty mode {name!r}; there are: {known}")
    return [MODES[name] for name in names]


def wrap(spec: str, context: Context, transport: Transport, counters: Counter[str]) -> Transport:
    """`transport` behind the modes of `spec`, which count in `counters` how often they fired."""
    for mode in check_modes(spec):
        transport = mode(context, transport, counters)
    return transport
