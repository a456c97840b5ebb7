"""Backing up a running cluster: a walk over the tree of one certified state, from all replicas.

Every node is checked against its parent, the root against the certificate. Replicas that lie, are
slow, or do not have this state any more are changed for others.
"""

import asyncio
from collections.abc import Callable
from typing import BinaryIO

from msgspec import Struct

from client.errors import DeadlineExceeded
from client.proofs import PATIENCE, PAUSE, Asker
from crypto.signing import Ed25519Verifier
from pbft.backups import FORMAT, BackupHeader, BackupWriter
from pbft.config import ClusterConfig
from pbft.messages import StateAnswer, StateSummary, TreeNode, TreePath
from pbft.proofs import NOTHING, ROOT, InvalidProof, check_certificate, checked_digest

PATHS_PER_QUERY = 16


class BackedUp(Struct, frozen=True):
    """What a backup holds."""

    summary: StateSummary
    entries: int


class _Gone(Exception):
    """No replica has this state any more."""


async def back_up(
    asker: Asker, config: ClusterConfig, file: BinaryIO, *, deadline: float, min_seq: int = 0
) -> BackedUp:
    """Write the newest certified state, not before `min_seq`, into the empty `file`.

    Where it disappears before it is complete, a newer one is taken, and the file begun again.
    Raises DeadlineExceeded after `deadline` seconds in which nothing went on, OSError.
    """
    while True:
        header = await _newest(asker, config, deadline, min_seq)
        file.seek(0)
        file.truncate()
        writer = BackupWriter(file, header)
        try:
            entries = await _Walk(asker, config, header.summary, deadline).write(writer.add)
        except _Gone:
            continue
        writer.finish()
        return BackedUp(header.summary, entries)


async def _newest(
    asker: Asker, config: ClusterConfig, deadline: float, min_seq: int
) -> BackupHeader:
    """The newest of the certified states that the replicas show."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + deadline
    while loop.time() < ends:
        asking = (_certified(asker, config, info.id) for info in config.replicas)
        found = [each for each in await asyncio.gather(*asking) if each is not None]
        best = max(found, key=lambda header: header.summary.seq, default=None)
        if best is not None and best.summary.seq >= min_seq:
            return best
        await asyncio.sleep(PAUSE)
    wanted = f" at or after {min_seq}" if min_seq else ""
    raise DeadlineExceeded(f"no replica shows a stable checkpoint{wanted}", sent=False)


async def _certified(asker: Asker, config: ClusterConfig, replica: int) -> BackupHeader | None:
    try:
        answer = await asker.ask_state(replica, 0, (ROOT,), PATIENCE)
        check_certificate(config, Ed25519Verifier(), answer.summary, answer.proof)
    except (DeadlineExceeded, InvalidProof):
        return None
    return BackupHeader(FORMAT, config.cluster_id, answer.summary, answer.proof)


class _Walk:
    """Depth first, so that buckets come in order of their paths; siblings are fetched together."""

    def __init__(
        self, asker: Asker, config: ClusterConfig, summary: StateSummary, deadline: float
    ) -> None:
        self._asker = asker
        self._summary = summary
        self._deadline = deadline
        self._sources = [info.id for info in config.replicas]
        self._silent: list[int] = []
        self._ahead = [(ROOT, summary.application_root)]
        self._fetched: dict[TreePath, TreeNode] = {}

    async def write(self, add: Callable[[TreeNode], None]) -> int:
        """Hand every bucket to `add`; the number of entries. Raises _Gone, DeadlineExceeded."""
        entries = 0
        while self._ahead:
            path, digest = self._ahead[-1]
            if digest != NOTHING and path not in self._fetched:
                await self._fetch()
            self._ahead.pop()
            node = self._fetched.pop(path, None)
            if node is None:
                continue
            if node.children:
                children = [(path + bytes([i]), digest) for i, digest in enumerate(node.children)]
                self._ahead += reversed(children)
            else:
                add(node)
                entries += len(node.entries)
        return entries

    async def _fetch(self) -> None:
        """Get the next node, and what else of those ahead fits into the same answer."""
        wanted = {
            path: digest
            for path, digest in reversed(self._ahead[-2 * PATHS_PER_QUERY :])
            if digest != NOTHING and path not in self._fetched
        }
        paths = tuple(wanted)[:PATHS_PER_QUERY]
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._deadline
        while paths[0] not in self._fetched:
            if not self._sources:
                self._sources, self._silent = self._silent, []
            if not self._sources:
                raise _Gone
            if loop.time() >= ends:
                raise DeadlineExceeded("no replica goes on showing its state", sent=False)
            await self._ask(self._sources.pop(0), paths, wanted)

    async def _ask(
        self, source: int, paths: tuple[TreePath, ...], wanted: dict[TreePath, bytes]
    ) -> None:
        """Take what it shows. One that was silent comes after all others, a wrong one never again.

        A silent one costs its whole patience: in its turn with others, that would be most of the
        time that a backup takes.
        """
        try:
            answer = await self._asker.ask_state(source, self._summary.seq, paths, PATIENCE)
        except DeadlineExceeded:
            self._silent.append(source)
            return
        if answer.nodes and answer.summary.seq == self._summary.seq and _true(answer, wanted):
            self._fetched.update((node.path, node) for node in answer.nodes)
            self._sources.append(source)


def _true(answer: StateAnswer, wanted: dict[TreePath, bytes]) -> bool:
    return all(wanted.get(node.path) == checked_digest(node) for node in answer.nodes)
