"""Typed calls to the bundled key-value store (etcd's data model)."""

from typing import Protocol, TypeVar

from msgspec import Struct

from client.errors import LocalError, RemoteError
from client.proofs import Proven
from client.transactions import op_delete, op_delete_range, op_put, op_range
from pbft.apps.kv_codec import (
    MAX_KEY_BYTES,
    AnyOperation,
    Compact,
    CompactResult,
    Compare,
    DeleteResult,
    MalformedResult,
    PutResult,
    Range,
    RangeResult,
    Result,
    Step,
    Txn,
    TxnResult,
    decode_result,
    encode,
    prefix_end,
)
from pbft.proofs import KEY_VALUE, MAP

R = TypeVar("R", bound=Result)


class Submitter(Protocol):
    """What a KV needs of a client."""

    async def submit(self, operation: bytes) -> bytes: ...

    async def query(self, operation: bytes, *, ordered: bool = False) -> bytes: ...

    async def read(self, operation: bytes, *, at_least: int | None = None) -> bytes: ...

    async def prove(self, key: bytes, *, subject: int = MAP, min_seq: int = 0) -> Proven: ...


class GetResult(Struct, frozen=True):
    """One key's state; `value` is None, and its numbers are 0, where it is not there.

    `revision` is the store's when the key was looked up.
    """

    revision: int
    value: bytes | None = None
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


class KV:
    """The store, over a client that is open. All calls raise ClientError."""

    def __init__(self, client: Submitter) -> None:
        self._client = client

    async def put(self, key: bytes, value: bytes, *, prev: bool = False) -> PutResult:
        """Set `key`; with `prev` the result's `prev_kv` is what was there before, or None."""
        return await self._submit(op_put(key, value, prev=prev), PutResult)

    async def get(
        self,
        key: bytes,
        *,
        revision: int = 0,
        ordered: bool = False,
        at_least: int | None = None,
    ) -> GetResult:
        """Look up `key`, now or as of `revision`; `ordered` skips the fast read.

        With `at_least`, a client's token, the store as it was then, or at any later time, will do.
        """
        operation = Range(key, revision=revision)
        if at_least is None or ordered:
            return _single(await self._query(operation, ordered))
        raw = await self._client.read(encode(operation), at_least=at_least)
        return _single(_decode(raw, RangeResult))

    async def get_verified(self, key: bytes, *, min_seq: int = 0) -> Proven:
        """What the newest stable checkpoint has under `key`, with a proof: see `Client.prove`."""
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise LocalError(f"a key has 1 to {MAX_KEY_BYTES} bytes")
        return await self._client.prove(key, subject=KEY_VALUE, min_seq=min_seq)

    async def range(
        self,
        start: bytes,
        end: bytes | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        descending: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        ordered: bool = False,
    ) -> RangeResult:
        """The keys with start <= key < end (None: no end), in order, at most `limit` unless 0."""
        operation = op_range(
            start,
            end,
            limit=limit,
            revision=revision,
            descending=descending,
            keys_only=keys_only,
            count_only=count_only,
        )
        return await self._query(operation, ordered)

    async def prefix(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, ordered: bool = False
    ) -> RangeResult:
        """The keys that begin with `prefix`, in order."""
        end = prefix_end(prefix) if prefix.rstrip(b"\xff") else None
        return await self.range(prefix, end, limit=limit, revision=revision, ordered=ordered)

    async def delete(self, key: bytes, *, prev: bool = False) -> DeleteResult:
        """Delete `key`; the result says whether it was there (`deleted`)."""
        return await self._submit(op_delete(key, prev=prev), DeleteResult)

    async def delete_range(
        self, start: bytes, end: bytes | None = None, *, prev: bool = False
    ) -> DeleteResult:
        """Delete the keys with start <= key < end (None: no end)."""
        return await self._submit(op_delete_range(start, end, prev=prev), DeleteResult)

    async def txn(
        self,
        compares: tuple[Compare, ...] = (),
        success: tuple[Step, ...] = (),
        failure: tuple[Step, ...] = (),
    ) -> TxnResult:
        """Do `success` if all `compares` hold, else `failure`, atomically."""
        return await self._submit(Txn(tuple(compares), tuple(success), tuple(failure)), TxnResult)

    async def compact(self, revision: int) -> CompactResult:
        """Forget all history before `revision`."""
        return await self._submit(Compact(revision), CompactResult)

    async def _submit(self, operation: AnyOperation, kind: type[R]) -> R:
        return _decode(await self._client.submit(encode(operation)), kind)

    async def _query(self, operation: Range, ordered: bool) -> RangeResult:
        return _decode(await self._client.query(encode(operation), ordered=ordered), RangeResult)


def _decode(raw: bytes, kind: type[R]) -> R:
    try:
        result = decode_result(raw)
    except MalformedResult:
        raise RemoteError("the cluster's application is not the key-value store") from None
    if not isinstance(result, kind):
        raise RemoteError("the result is not that of this operation")
    return result


def _single(result: RangeResult) -> GetResult:
    if not result.kvs:
        return GetResult(result.revision)
    kv = result.kvs[0]
    return GetResult(result.revision, kv.value, kv.create_revision, kv.mod_revision, kv.version)
