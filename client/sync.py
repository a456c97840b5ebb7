"""The blocking twins: a client whose event loop runs in a thread of its own, and its store."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from client.client import DEFAULT_DEADLINE, Client
from client.errors import LocalError
from client.kv import KV, GetResult
from client.proofs import Proven
from client.suspicion import Suspicion
from crypto.keys import load_signer
from crypto.signing import Signer
from pbft.apps.kv_codec import (
    CompactResult,
    Compare,
    DeleteResult,
    PutResult,
    RangeResult,
    Step,
    TxnResult,
)
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster

T = TypeVar("T")


class SyncClient:
    """`Client` for code without asyncio, for use with `with`. Many threads may share one."""

    def __init__(
        self, config: ClusterConfig, signer: Signer, *, deadline: float = DEFAULT_DEADLINE
    ) -> None:
        self.asynchronous = Client(config, signer, deadline=deadline)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def connect(
        cls, cluster: str | Path, key: str | Path, *, deadline: float = DEFAULT_DEADLINE
    ) -> Self:
        """A client from `cluster.toml` and a private key file. Raises ConfigError, KeyFileError."""
        return cls(load_cluster(cluster), load_signer(key), deadline=deadline)

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise LocalError("the client is open already")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop,), daemon=True)
        self._thread.start()
        try:
            self.run(self.asynchronous.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is unfinished, close all connections, end the thread. Idempotent."""
        if self._loop is None:
            return
        self.run(self.asynchronous.close())
        loop, self._loop = self._loop, None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_forever()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run one call of the asynchronous client, and wait for it. Raises what it raises."""
        if self._loop is None:
            call.close()
            raise LocalError("the client is not open: use it in `with`")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, operation: bytes, deadline: float | None = None) -> bytes:
        """See `Client.submit`."""
        return self.run(self.asynchronous.submit(operation, deadline))

    def query(
        self, operation: bytes, *, ordered: bool = False, deadline: float | None = None
    ) -> bytes:
        """See `Client.query`."""
        return self.run(self.asynchronous.query(operation, ordered=ordered, deadline=deadline))

    def read(
        self, operation: bytes, *, at_least: int | None = None, deadline: float | None = None
    ) -> bytes:
        """See `Client.read`."""
        return self.run(self.asynchronous.read(operation, at_least=at_least, deadline=deadline))

    @property
    def token(self) -> int:
        """See `Client.token`."""
        return self.asynchronous.token

    def prove(self, key: bytes, *, min_seq: int = 0, deadline: float | None = None) -> Proven:
        """See `Client.prove`."""
        return self.run(self.asynchronous.prove(key, min_seq=min_seq, deadline=deadline))

    def status(self, replica: int, deadline: float | None = None) -> dict[str, Any]:
        """See `Client.status`."""
        return self.run(self.asynchronous.status(replica, deadline))

    @property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Signed replies that contradict accepted outcomes."""
        return self.asynchronous.suspicions


class SyncKV:
    """`KV` over a `SyncClient`; see there for what the calls do."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client
        self._kv = KV(client.asynchronous)

    def put(self, key: bytes, value: bytes, *, prev: bool = False) -> PutResult:
        """Set `key`."""
        return self._client.run(self._kv.put(key, value, prev=prev))

    def get(
        self,
        key: bytes,
        *,
        revision: int = 0,
        ordered: bool = False,
        at_least: int | None = None,
    ) -> GetResult:
        """Look up `key`."""
        return self._client.run(
            self._kv.get(key, revision=revision, ordered=ordered, at_least=at_least)
        )

    def get_verified(self, key: bytes, *, min_seq: int = 0) -> Proven:
        """Look up `key` in a certified state, with a proof."""
        return self._client.run(self._kv.get_verified(key, min_seq=min_seq))

    def range(
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
        """The keys with start <= key < end (None: no end)."""
        return self._client.run(
            self._kv.range(
                start,
                end,
                limit=limit,
                revision=revision,
                descending=descending,
                keys_only=keys_only,
                count_only=count_only,
                ordered=ordered,
            )
        )

    def prefix(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, ordered: bool = False
    ) -> RangeResult:
        """The keys that begin with `prefix`."""
        return self._client.run(
            self._kv.prefix(prefix, limit=limit, revision=revision, ordered=ordered)
        )

    def delete(self, key: bytes, *, prev: bool = False) -> DeleteResult:
        """Delete `key`."""
        return self._client.run(self._kv.delete(key, prev=prev))

    def delete_range(
        self, start: bytes, end: bytes | None = None, *, prev: bool = False
    ) -> DeleteResult:
        """Delete the keys with start <= key < end (None: no end)."""
        return self._client.run(self._kv.delete_range(start, end, prev=prev))

    def txn(
        self,
        compares: tuple[Compare, ...] = (),
        success: tuple[Step, ...] = (),
        failure: tuple[Step, ...] = (),
    ) -> TxnResult:
        """Do `success` if all `compares` hold, else `failure`, atomically."""
        return self._client.run(self._kv.txn(compares, success, failure))

    def compact(self, revision: int) -> CompactResult:
        """Forget all history before `revision`."""
        return self._client.run(self._kv.compact(revision))
