"""The asyncio shell around a `ClientSession`: connections, one timer, and futures."""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from client.errors import (
    ClientError,
    DeadlineExceeded,
    LocalError,
    NotConnected,
    OutcomeUnknown,
    RemoteError,
)
from client.links import Links
from client.proofs import Proven, prove
from client.session import ClientSession
from client.suspicion import Suspicion
from client.ticket import Completion, Progress, Ticket
from crypto.keys import load_signer
from crypto.signing import Ed25519Verifier, Signer
from pbft.codec import decode_body
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.core.quorum import Quorum
from pbft.messages import StateAnswer, TreePath
from pbft.proofs import MAP, MAX_KEY_BYTES

DEFAULT_DEADLINE = 30.0
_TIMER_GRAIN = 0.001  # seconds; event loops do not time more finely


class Client:
    """A client of one cluster, for use with `async with`. Many tasks may share one.

    It does not wait for connections: an operation waits until its deadline (seconds) has passed.
    """

    def __init__(
        self, config: ClusterConfig, signer: Signer, *, deadline: float = DEFAULT_DEADLINE
    ) -> None:
        self._config = config
        self._signer = signer
        self._deadline = deadline
        if signer.public_key not in config.client_keys():
            raise LocalError("this key is none of the clients' in the cluster's configuration")
        self._session = self._fresh_session()
        self._token = 0  # of earlier openings
        self._weak = Quorum(len(config.replicas)).w
        self._futures: dict[Ticket, asyncio.Future[bytes]] = {}
        self._links: Links | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0  # µs, while there is a timer
        self._flush_soon: asyncio.Handle | None = None
        self._epoch = 0  # µs since 1970 when the event loop's clock was 0

    @classmethod
    def connect(
        cls, cluster: str | Path, key: str | Path, *, deadline: float = DEFAULT_DEADLINE
    ) -> Self:
        """A client from `cluster.toml` and a private key file. Raises ConfigError, KeyFileError."""
        return cls(load_cluster(cluster), load_signer(key), deadline=deadline)

    def _fresh_session(self) -> ClientSession:
        verifier = Ed25519Verifier()
        return ClientSession(self._config, self._signer, verifier, secrets.randbits(256))

    async def __aenter__(self) -> Self:
        if self._links is not None:
            raise LocalError("the client is open already")
        self._token = max(self._token, self._session.token)
        self._session = self._fresh_session()  # a seed of its own, also after a fork
        self._loop = asyncio.get_running_loop()
        self._epoch = time.time_ns() // 1000 - int(self._loop.time() * 1e6)
        self._links = Links(self._config, self._signer, self._on_open, self._on_packet)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what is unfinished, and close all connections. Idempotent."""
        links, self._links = self._links, None
        if links is None:
            return
        for handle in (self._timer, self._flush_soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush_soon = None
        for ticket in list(self._futures):
            self._settle(Completion(ticket, _closed(ticket)))
            self._session.abandon(ticket)
        await links.close()

    # --- calls ---

    async def submit(self, operation: bytes, deadline: float | None = None) -> bytes:
        """The result of `operation`, which the cluster orders and executes at most once.

        If the awaiting task is cancelled, the operation may still be executed. Raises Refused,
        ApplicationFailed, OutcomeUnknown, DeadlineExceeded, NotConnected, QueueFull, LocalError.
        """
        return await self._wait(
            lambda: self._session.submit(operation, deadline=self._until(deadline))
        )

    async def query(
        self, operation: bytes, *, ordered: bool = False, deadline: float | None = None
    ) -> bytes:
        """Answer a read-only `operation` from a state with every write acknowledged before.

        It is ordered like a write only when asked for, or if the replicas cannot agree on a fast
        read. Raises as `submit` does, without OutcomeUnknown.
        """

        def start() -> Ticket:
            until = self._until(deadline)
            if ordered:
                return self._session.submit(operation, read_only=True, deadline=until)
            return self._session.read(operation, deadline=until)

        return await self._wait(start)

    async def read(
        self, operation: bytes, *, at_least: int | None = None, deadline: float | None = None
    ) -> bytes:
        """Answer a read-only `operation` from a state that is not before what this client has seen.

        `at_least` is a `token`, by default this client's own. What others have written meanwhile
        may be missing; in return w replicas are enough. With 0 it is a `query`. Raises as that.
        """
        seen = self.token if at_least is None else at_least
        return await self._wait(
            lambda: self._session.read(operation, at_least=seen, deadline=self._until(deadline))
        )

    @property
    def token(self) -> int:
        """How far this client has seen the state, as a sequence number: keep it over a restart."""
        return max(self._token, self._session.token)

    async def prove(
        self,
        key: bytes,
        *,
        subject: int = MAP,
        min_seq: int = 0,
        deadline: float | None = None,
    ) -> Proven:
        """What the newest stable checkpoint's state has under `key`, with a proof.

        `key` is one of the application's map, or with `subject` KEY_VALUE of the key-value store.
        `min_seq` asks for a state that is not older. There is a checkpoint after every
        `checkpoint_interval` batches, so in an idle cluster none may come. Raises LocalError,
        DeadlineExceeded with the reason, NotConnected.
        """
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise LocalError(f"a key has 1 to {MAX_KEY_BYTES} bytes")
        replicas = [replica.id for replica in self._config.replicas]
        start = secrets.randbelow(len(replicas))
        return await prove(
            self,
            self._config,
            key,
            subject,
            min_seq=min_seq,
            deadline=self._deadline if deadline is None else deadline,
            replicas=replicas[start:] + replicas[:start],
        )

    async def ask_state(
        self, replica: int, seq: int, paths: tuple[TreePath, ...], deadline: float
    ) -> StateAnswer:
        """What `replica` says of the state after `seq` (0: its newest stable checkpoint), unproved.

        Raises DeadlineExceeded, LocalError.
        """
        raw = await self._wait(
            lambda: self._session.ask_state(
                replica, seq, paths, self._now(), deadline=self._until(deadline)
            )
        )
        answer = decode_body(raw)
        assert isinstance(answer, StateAnswer)
        return answer

    async def status(self, replica: int, deadline: float | None = None) -> dict[str, Any]:
        """What `replica` says of itself. Raises NotConnected, DeadlineExceeded, RemoteError."""
        try:
            raw = await self._wait(
                lambda: self._session.status(replica, self._now(), deadline=self._until(deadline))
            )
        except DeadlineExceeded:
            if replica in self._connected:
                raise
            raise NotConnected(f"replica {replica} could not be reached", sent=False) from None
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise RemoteError(f"the report of replica {replica} is not a JSON object") from None

    @property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Signed replies that contradict accepted outcomes."""
        return self._session.suspicions

    @property
    def view(self) -> int:
        """The view that the cluster is believed to be in."""
        return self._session.view

    # --- between calls and the session ---

    @property
    def _connected(self) -> frozenset[int]:
        return frozenset() if self._links is None else self._links.connected

    def _now(self) -> int:
        return self._epoch + int(self._loop.time() * 1e6)

    def _until(self, deadline: float | None) -> int:
        seconds = self._deadline if deadline is None else deadline
        return self._now() + int(seconds * 1e6)

    async def _wait(self, start: Callable[[], Ticket]) -> bytes:
        if self._links is None:
            raise LocalError("the client is not open: use it in `async with`")
        ticket = start()
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._futures[ticket] = future
        self._schedule()
        try:
            return await future
        except asyncio.CancelledError:
            self._futures.pop(ticket, None)
            self._session.abandon(ticket)
            raise

    def _on_open(self, replica: int) -> None:
        self._session.connected(replica)
        self._schedule()

    def _on_packet(self, replica: int, packet: bytes) -> None:
        self._session.receive(replica, packet)
        if self._session.pending:  # not after a reply that only confirms
            self._schedule()

    def _schedule(self) -> None:
        """Flush once all that happens in this iteration of the event loop has happened."""
        if self._flush_soon is None and self._links is not None:
            self._flush_soon = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        assert self._links is not None
        self._flush_soon = None
        output = self._session.poll(self._now())
        for replica, packet in output.sends:
            self._links.send(replica, packet)
        for completion in output.completions:
            self._settle(completion)
        self._wake(output.wake_at)

    def _settle(self, completion: Completion) -> None:
        future = self._futures.pop(completion.ticket, None)
        if future is None or future.done():
            return
        if isinstance(completion.result, bytes):
            future.set_result(completion.result)
        else:
            future.set_exception(self._explain(completion.result))

    def _explain(self, error: ClientError) -> ClientError:
        """Say so if an operation was late because hardly any replica can be reached."""
        count = len(self._connected)
        if isinstance(error, DeadlineExceeded) and count < self._weak:
            return NotConnected(
                f"{count} of {len(self._config.replicas)} replicas could be reached "
                f"and {self._weak} are needed",
                sent=error.sent,
            )
        return error

    def _wake(self, at: int | None) -> None:
        if self._timer is not None and at is not None and self._timer_at <= at:
            return  # early is as good, and cheaper than another timer
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay = max((at - self._now()) / 1e6, _TIMER_GRAIN)
            self._timer, self._timer_at = self._loop.call_later(delay, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule()


def _closed(ticket: Ticket) -> ClientError:
    if ticket.progress is Progress.SENT and not ticket.read_only:
        return OutcomeUnknown("the client was closed before the outcome was known")
    return LocalError("the client was closed")
