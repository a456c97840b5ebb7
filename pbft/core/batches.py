"""A batch with everything that follows from its bytes, computed once."""

from msgspec import Struct

from pbft.codec import NULL_BATCH, MalformedMessage, batch_digest, decode_body, request_digest
from pbft.messages import Batch, Request

REQUEST_WEIGHT = 1024  # what a request takes in memory besides its bytes


class BatchContent(Struct, frozen=True):
    """`requests[i]` is the decoded body of `batch.requests[i]`, `digests[i]` its request digest."""

    digest: bytes
    batch: Batch
    requests: tuple[Request, ...]
    digests: tuple[bytes, ...]

    @property
    def weight(self) -> int:
        """About how many bytes it takes in memory."""
        return sum(len(request.body) + REQUEST_WEIGHT for request in self.batch.requests)


def content_of(batch: Batch) -> BatchContent:
    """Decode and digest `batch` (R1). Signatures are not looked at. Raises MalformedMessage."""
    requests = []
    for envelope in batch.requests:
        body = decode_body(envelope.body)
        if not isinstance(body, Request):
            raise MalformedMessage("a batch holds something that is not a request")
        requests.append(body)
    digests = tuple(map(request_digest, batch.requests))
    return BatchContent(batch_digest(batch.time, digests), batch, tuple(requests), digests)


NULL_CONTENT = content_of(NULL_BATCH)
