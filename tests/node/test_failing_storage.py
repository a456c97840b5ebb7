"""Wherever the disk fails in a turn, nothing has left that is not on it (R39, R47)."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
import target
from target import START, Target, frame

from pbft.apps.kv_codec import Put, encode
from pbft.codec import batch_digest, decode_body, request_digest
from pbft.core.records import TABLES, restore
from pbft.messages import Batch, Commit, Envelope, Prepare, PrePrepare, Proposal, Request
from pbft.storage.database import StorageFailure
from pbft.storage.memory_database import MemoryDatabase, MemoryTransaction


class Trouble:
    """The `at`-th step on any disk fails, and with it the whole database."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise StorageFailure("the disk has failed")


class FailingTransaction(MemoryTransaction):
    trouble: Trouble

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.trouble.step()
        super().put(table, key, value)

    def commit(self) -> None:
        self.trouble.step()
        super().commit()


class FailingDatabase(MemoryDatabase):
    trouble = Trouble(1 << 30)
    made: list["FailingDatabase"] = []  # noqa: RUF012

    def __init__(self, tables: Sequence[str]) -> None:
        super().__init__(tables)
        self.made.append(self)

    def begin(self) -> MemoryTransaction:
        self.trouble.step()
        self._writer = FailingTransaction(self, self._tables)
        self._writer.trouble = self.trouble
        return self._writer

    def snapshot(self) -> Any:
        self.trouble.step()
        return super().snapshot()


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> list[FailingDatabase]:
    monkeypatch.setattr(target, "MemoryDatabase", FailingDatabase)
    monkeypatch.setattr(FailingDatabase, "made", [])
    monkeypatch.setattr(FailingDatabase, "trouble", Trouble(1 << 30))
    return FailingDatabase.made


def live(node: Target) -> None:
    """Four batches, and so a checkpoint."""
    node.node.core.gate.release("unconfirmed")
    client = node.clients[0].public_key
    for seq in range(1, 5):
        operations = (encode(Put(b"k%d" % seq, b"v")),) if seq > 1 else ()
        request = node.sign(Request(client, 1, seq - 1, 0, False, operations))
        time = START.wall
        digest = batch_digest(time, (request_digest(request),))
        proposal = Proposal(node.sign(PrePrepare(0, 0, seq, digest)), Batch(time, (request,)))
        node.take(frame(proposal), 0)
        for vote in (Prepare(2, 0, seq, digest), Commit(2, 0, seq, digest)):
            node.take(frame(node.sign(vote)), 2)
        node.take(frame(node.sign(Commit(0, 0, seq, digest))), 0)


def votes_sent(node: Target) -> set[bytes]:
    own = [packet for _, packet in node.wire.sent if isinstance(packet, Envelope)]
    return {e.body for e in own if isinstance(decode_body(e.body), Prepare | Commit)}


def votes_on(log: FailingDatabase) -> set[bytes]:
    log.crash()
    log.trouble.left = 1 << 30
    snapshot = log.snapshot()
    records = [(table, *record) for table in TABLES for record in snapshot.scan(table)]
    slots = restore(records).slots.values()
    return {e.body for slot in slots for e in (slot.prepare, slot.commit) if e is not None}


@pytest.mark.rule("R39")
@pytest.mark.rule("R47")
def test_no_vote_leaves_before_the_disk_has_it_wherever_the_disk_fails(
    disks: list[FailingDatabase],
) -> None:
    failed = 0
    for at in count(1):
        disks.clear()
        FailingDatabase.trouble.left = 1 << 30
        node = Target()
        FailingDatabase.trouble.left = at
        try:
            live(node)
        except StorageFailure:
            failed += 1
        sent, log = votes_sent(node), disks[0]
        assert sent <= votes_on(log)
        if failed < at:
            assert len(sent) == 8
            assert node.node.store.seq == 4
            break
    assert failed > 30
