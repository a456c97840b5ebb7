"""Signing what the client says, and checking what replicas have signed (R7)."""

from collections import OrderedDict

from crypto.signing import Signer, Verifier
from pbft.codec import SIGNING_DOMAIN, MalformedMessage, decode_body, encode, signing_input
from pbft.config import ClusterConfig
from pbft.messages import BatchReplies, Body, Envelope

HEADERS_PER_REPLICA = 128


class Envelopes:
    """Seals with the client's key and opens with the replicas' keys of one cluster."""

    def __init__(self, config: ClusterConfig, signer: Signer, verifier: Verifier) -> None:
        self.client = signer.public_key
        self._cluster_id = config.cluster_id
        self._keys = {replica.id: replica.public_key for replica in config.replicas}
        self._signer = signer
        self._verifier = verifier
        self._headers: dict[int, OrderedDict[Envelope, BatchReplies]] = {
            replica: OrderedDict() for replica in self._keys
        }

    def seal(self, body: Body) -> Envelope:
        """`body`, signed by the client."""
        raw = encode(body)
        message = signing_input(self._cluster_id, raw)
        return Envelope(raw, self._signer.sign(SIGNING_DOMAIN, message))

    def signed_by(self, replica: int, envelope: Envelope) -> bool:
        """Whether `replica`, a member of the cluster, has signed `envelope`."""
        message = signing_input(self._cluster_id, envelope.body)
        key = self._keys[replica]
        return self._verifier.verify(key, SIGNING_DOMAIN, message, envelope.signature)

    def header(self, replica: int, envelope: Envelope) -> BatchReplies | None:
        """The reply header signed by `replica`, None if it is not one.

        A header covers a whole batch, so valid ones are remembered: a bounded number per replica.
        """
        known = self._headers[replica]
        header = known.get(envelope)
        if header is None:
            header = self._check_header(replica, envelope)
            if header is not None:
                known[envelope] = header
                if len(known) > HEADERS_PER_REPLICA:
                    known.popitem(last=False)
        return header

    def _check_header(self, replica: int, envelope: Envelope) -> BatchReplies | None:
        try:
            body = decode_body(envelope.body)
        except MalformedMessage:
            return None
        if not isinstance(body, BatchReplies) or body.replica != replica:
            return None
        return body if self.signed_by(replica, envelope) else None
