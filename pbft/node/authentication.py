"""From received bytes to verified events: the only door into the core.

Cheapest checks first (R43): canonical decoding, who may say this over which channel, whether the
core has any use for it, shape and counts of certificates; then signatures, each one once (what was
verified is remembered). Only this module and a replica's own signing gate build `Verified`.
"""

from typing import TypeVar

from pbft.codec import (
    SIGNING_DOMAIN,
    MalformedMessage,
    decode_body,
    decode_packet,
    signing_input,
)
from pbft.config import ClusterConfig
from pbft.core import events
from pbft.core.batches import BatchContent, content_of
from pbft.core.certificates import (
    InvalidCertificate,
    check_checkpoints,
    check_commits,
    check_new_view_shape,
    check_starts,
    check_view_change,
    opened,
    signatures_in,
)
from pbft.core.quorum import Quorum
from pbft.core.relevance import reason_to_drop
from pbft.core.replica import Replica
from pbft.messages import (
    AnyBody,
    Batch,
    BatchBody,
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
    Prepare,
    PrePrepare,
    Proof,
    Proposal,
    Read,
    Recovery,
    Request,
    StateNodes,
    StateQuery,
    Status,
    StatusQuery,
    Suspect,
    Verified,
    ViewChange,
)
from pbft.node.ports import Verifier

B = TypeVar("B", bound=Body)
Peer = int | bytes

FROM_CLIENTS = (Request, Read, StatusQuery, StateQuery)
FROM_REPLICAS = (
    Prepare,
    Commit,
    Checkpoint,
    ViewChange,
    NewView,
    Suspect,
    Status,
    FetchBatches,
    FetchBatch,
    FetchState,
    StateNodes,
    Incarnation,
    IncarnationSeen,
    Recovery,
)
REMEMBERED_SIGNATURES = 16_384


class Rejected(Exception):
    """A received message goes no further; the text is the reason it is counted under."""


class Authenticator:
    """Checks what peers send to one replica."""

    def __init__(self, config: ClusterConfig, verifier: Verifier, replica: Replica) -> None:
        self._config = config
        self._quorum = Quorum(len(config.replicas))
        self._keys = {info.id: info.public_key for info in config.replicas}
        self._clients = config.client_keys()
        self._verifier = verifier
        self._replica = replica
        self._verified: dict[bytes, None] = {}
        self.verifications = 0

    def open(self, raw: bytes, peer: Peer) -> events.Event:
        """The event that one frame from `peer` makes. Raises Rejected."""
        try:
            packet = decode_packet(raw)
            if isinstance(packet, Envelope):
                return self._message(packet, peer)
            if not isinstance(peer, int):
                raise Rejected("packet-not-for-clients-to-send")
            if isinstance(packet, Proposal):
                return self._proposal(packet, peer)
            if isinstance(packet, BatchBody):
                return self._batch_body(packet, peer)
            if isinstance(packet, CommittedBatch):
                return self._committed(packet, peer)
            if isinstance(packet, CheckpointProof):
                return self._checkpoints(packet)
            raise Rejected("packet-not-for-replicas")
        except MalformedMessage as error:
            raise Rejected(f"malformed: {error}") from None
        except InvalidCertificate as error:
            raise Rejected(f"certificate: {error}") from None

    # -- one signed message

    def _message(self, envelope: Envelope, peer: Peer) -> events.Received:
        body = decode_body(envelope.body)
        self._check_channel(body, peer)
        if reason := reason_to_drop(self._replica, body):
            raise Rejected(reason)
        self._check_shape(body)
        self._check_signature(self._signer(body), envelope)
        for signer, nested in signatures_in(body):
            self._check_signature(self._key(signer), nested)
        return events.Received(Verified(body=body, envelope=envelope), peer)

    def _check_channel(self, body: AnyBody, peer: Peer) -> None:
        """Over a client's channel come its own messages; replicas relay what concerns others."""
        if not isinstance(peer, int):
            if not isinstance(body, FROM_CLIENTS):
                raise Rejected("message-not-for-clients-to-send")
            if body.client != peer:
                raise Rejected("impersonation")
        elif isinstance(body, Request):
            if body.client not in self._clients:
                raise Rejected("unknown-client")
        elif not isinstance(body, FROM_REPLICAS):
            raise Rejected("message-not-for-replicas-to-send")
        elif body.replica != peer and not isinstance(body, NewView | Recovery):
            raise Rejected("impersonation")

    def _check_shape(self, body: AnyBody) -> None:
        parameters = self._config.parameters
        if isinstance(body, ViewChange):
            check_view_change(self._quorum, parameters.window, body)
        elif isinstance(body, NewView):
            check_new_view_shape(self._quorum, parameters.window, body)
        elif isinstance(body, IncarnationSeen):
            check_starts(self._quorum, body)
        elif isinstance(body, Request | Read):
            self._check_operations(body)

    def _check_operations(self, body: Request | Read) -> None:
        parameters = self._config.parameters
        if len(body.operations) > parameters.max_bundle_operations:
            raise Rejected("too-many-operations")
        if any(len(operation) > parameters.max_operation_bytes for operation in body.operations):
            raise Rejected("operation-too-large")
        if sum(map(len, body.operations)) > parameters.max_batch_bytes:
            raise Rejected("bundle-too-large")

    # -- bundles

    def _proposal(self, packet: Proposal, peer: int) -> events.ProposalReceived:
        body = opened(packet.pre_prepare, PrePrepare)
        if body.replica != peer:
            raise Rejected("impersonation")
        if reason := reason_to_drop(self._replica, body):
            raise Rejected(reason)
        content = self._content(packet.batch)
        if content.digest != body.digest:
            raise Rejected("batch-digest-mismatch")
        self._check_signature(self._key(body.replica), packet.pre_prepare)
        self._check_clients(content)
        return events.ProposalReceived(Verified(body=body, envelope=packet.pre_prepare), content)

    def _content(self, batch: Batch) -> BatchContent:
        parameters = self._config.parameters
        if len(batch.requests) > parameters.max_batch_requests:
            raise Rejected("batch-has-too-many-requests")
        size = sum(len(request.body) for request in batch.requests)
        if size > parameters.max_batch_bytes + parameters.max_operation_bytes:
            raise Rejected("batch-too-large")
        return content_of(batch)

    def _check_clients(self, content: BatchContent) -> None:
        """Every client signature in a batch (R3); requests seen before are remembered."""
        for request, envelope in zip(content.requests, content.batch.requests, strict=True):
            if request.client not in self._clients:
                raise Rejected("unknown-client")
            self._check_operations(request)
            self._check_signature(request.client, envelope)

    def _batch_body(self, packet: BatchBody, peer: int) -> events.BatchReceived:
        if not self._replica.fetching.wants_any(packet.seq):
            raise Rejected("body-not-asked-for")
        content = self._content(packet.batch)
        if not self._replica.fetching.wants(packet.seq, content.digest):
            raise Rejected("body-not-asked-for")
        self._check_clients(content)
        return events.BatchReceived(packet.seq, content, peer)

    def _committed(self, packet: CommittedBatch, peer: int) -> events.CommittedBatchReceived:
        """q COMMITs say that f+1 correct replicas have checked the batch's client signatures."""
        commit = check_commits(self._quorum, packet.commits)
        if commit.seq <= self._replica.queue.handed:
            raise Rejected("batch-not-needed")
        content = self._content(packet.batch)
        if content.digest != commit.digest:
            raise Rejected("batch-digest-mismatch")
        votes = self._votes(packet.commits, Commit)
        return events.CommittedBatchReceived(votes, content, peer)

    def _checkpoints(self, packet: CheckpointProof) -> events.CheckpointProofReceived:
        first = check_checkpoints(self._quorum, packet.checkpoints, self._quorum.w)
        if reason := reason_to_drop(self._replica, first):
            raise Rejected(reason)
        return events.CheckpointProofReceived(self._votes(packet.checkpoints, Checkpoint))

    def _votes(self, proof: Proof, kind: type[B]) -> tuple[Verified[B], ...]:
        return tuple(self._vote(envelope, kind) for envelope in proof)

    def _vote(self, envelope: Envelope, kind: type[B]) -> Verified[B]:
        body = opened(envelope, kind)
        self._check_signature(self._signer(body), envelope)
        return Verified(body=body, envelope=envelope)

    # -- signatures

    def _signer(self, body: Body) -> bytes:
        replica = getattr(body, "replica", None)
        if replica is not None:
            return self._key(replica)
        client: bytes = body.client  # type: ignore[attr-defined]
        if client not in self._clients:
            raise Rejected("unknown-client")
        return client

    def _key(self, replica: int) -> bytes:
        key = self._keys.get(replica)
        if key is None:
            raise Rejected("unknown-replica")
        return key

    def _check_signature(self, key: bytes, envelope: Envelope) -> None:
        message = signing_input(self._config.cluster_id, envelope.body)
        memory = key + envelope.signature + message
        if memory in self._verified:
            return
        self.verifications += 1
        if not self._verifier.verify(key, SIGNING_DOMAIN, message, envelope.signature):
            raise Rejected("bad-signature")
        self._verified[memory] = None
        if len(self._verified) > REMEMBERED_SIGNATURES:
            del self._verified[next(iter(self._verified))]
