"""Verified reads: what a checkpoint's state has under a key, proved to whoever holds the proof.

One replica is asked after the other until one has brought a proof that holds: a lying or slow one
is simply changed. See `pbft.proofs` for what a proof consists of.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Protocol

from msgspec import Struct

from client.errors import DeadlineExceeded
from crypto.signing import Ed25519Verifier, Verifier
from pbft.apps.kv_codec import KeyValue
from pbft.apps.kv_proof import NotKeyValueState, first_record, newest
from pbft.config import ClusterConfig
from pbft.messages import StateAnswer, TreePath
from pbft.proofs import (
    FORMAT,
    MAP,
    InvalidProof,
    PartialTree,
    StateProof,
    Unproved,
    check_certificate,
    path_of,
)

PATIENCE = 1.0  # seconds that one replica may take for an answer
PAUSE = 0.1  # seconds, once all replicas were asked in vain


class Proven(Struct, frozen=True):
    """What the state right after `seq`, at the agreed `time` (µs), has under `key`.

    `value` is None where it is not there. The numbers are those of the key-value store, else 0.
    """

    key: bytes
    value: bytes | None
    seq: int
    time: int
    signers: tuple[int, ...]
    proof: StateProof
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


class Asker(Protocol):
    """What proving needs of a client."""

    async def ask_state(
        self, replica: int, seq: int, paths: tuple[TreePath, ...], deadline: float
    ) -> StateAnswer: ...


class NotThere(Exception):
    """A replica cannot show what is wanted; the text is half a sentence about it."""


def verify_proof(proof: StateProof, config: ClusterConfig, *, min_seq: int = 0) -> Proven:
    """What `proof` shows, if it does so for the cluster of `config`; no replica is asked.

    Raises InvalidProof, also for a state before `min_seq`.
    """
    if proof.cluster_id != config.cluster_id:
        raise InvalidProof("it is a proof about another cluster")
    signers = check_certificate(config, Ed25519Verifier(), proof.summary, proof.checkpoints)
    tree = PartialTree(proof.summary.application_root)
    tree.add(proof.nodes)
    if proof.summary.seq < min_seq:
        raise InvalidProof(f"it speaks for the state after {proof.summary.seq}, not {min_seq}")
    try:
        return _conclude(proof, signers, _read(proof.subject, tree.lookup, proof.key))
    except Unproved as error:
        raise InvalidProof(str(error)) from None


def _read(
    subject: int, lookup: Callable[[bytes], bytes | None], key: bytes
) -> KeyValue | bytes | None:
    if subject == MAP:
        return lookup(key)
    try:
        return newest(lookup, key)
    except NotKeyValueState as error:
        raise InvalidProof(str(error)) from None


def _conclude(
    proof: StateProof, signers: tuple[int, ...], found: KeyValue | bytes | None
) -> Proven:
    key, seq, time = proof.key, proof.summary.seq, proof.summary.time
    if not isinstance(found, KeyValue):
        return Proven(key, found, seq, time, signers, proof)
    numbers = found.create_revision, found.mod_revision, found.version
    return Proven(key, found.value, seq, time, signers, proof, *numbers)


async def prove(
    asker: Asker,
    config: ClusterConfig,
    key: bytes,
    subject: int,
    *,
    min_seq: int,
    deadline: float,
    replicas: Iterable[int],
) -> Proven:
    """Have `key` proved by one of `replicas`, from the state after `min_seq` or later.

    Raises DeadlineExceeded, with what the last one said, after `deadline` seconds.
    """
    order = list(replicas)
    loop = asyncio.get_running_loop()
    ends = loop.time() + deadline
    trouble = "no replica was asked"
    for replica in cycle(order):
        patience = min(ends - loop.time(), PATIENCE)
        if patience <= 0:
            raise DeadlineExceeded(f"no proof within the deadline: {trouble}", sent=False)
        try:
            source = _Source(asker, config, replica, patience)
            return await source.prove(key, subject, min_seq)
        except DeadlineExceeded:
            trouble = f"replica {replica} did not answer in time"
        except (NotThere, InvalidProof) as error:
            trouble = f"of replica {replica}: {error}"
        if replica == order[-1]:
            await asyncio.sleep(min(PAUSE, max(0.0, ends - loop.time())))
    raise AssertionError("a cluster has replicas")


class _Source:
    """One replica, and what it has shown."""

    def __init__(self, asker: Asker, config: ClusterConfig, replica: int, patience: float) -> None:
        self._asker = asker
        self._config = config
        self._replica = replica
        self._patience = patience
        self._verifier: Verifier = Ed25519Verifier()

    async def prove(self, key: bytes, subject: int, min_seq: int) -> Proven:
        """Raises NotThere, InvalidProof, DeadlineExceeded."""
        first = await self._ask(0, key if subject == MAP else first_record(key))
        summary = first.summary
        if not summary.seq:
            raise NotThere("it has no stable checkpoint to show yet")
        signers = check_certificate(self._config, self._verifier, summary, first.proof)
        if summary.seq < min_seq:
            raise NotThere(f"its newest stable checkpoint is {summary.seq}, before {min_seq}")
        tree = PartialTree(summary.application_root)
        tree.add(first.nodes)
        found = await self._complete(tree, key, subject, summary.seq)
        cluster = self._config.cluster_id
        proof = StateProof(FORMAT, cluster, subject, key, summary, tree.nodes, first.proof)
        return _conclude(proof, signers, found)

    async def _complete(
        self, tree: PartialTree, key: bytes, subject: int, seq: int
    ) -> KeyValue | bytes | None:
        """Fetch what is missing on the way to the answer: a record may name another one."""
        missing = b""
        while True:
            try:
                return _read(subject, tree.lookup, key)
            except Unproved as unproved:
                if unproved.key == missing:
                    raise NotThere("it does not show what it was asked for") from None
                missing = unproved.key
            answer = await self._ask(seq, missing)
            if answer.summary.seq != seq:
                raise NotThere(f"it does not have the state after {seq} any more")
            tree.add(answer.nodes)

    async def _ask(self, seq: int, record: bytes) -> StateAnswer:
        return await self._asker.ask_state(self._replica, seq, (path_of(record),), self._patience)
