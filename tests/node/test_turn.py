"""One turn: in which order frames are opened, and when the state is flushed."""

import pytest
from target import START, Target, frame

from pbft.apps.kv_codec import Put, encode as encode_operation
from pbft.codec import batch_digest, checkpoint_digest, decode_body, request_digest
from pbft.core.context import Instant
from pbft.messages import (
    Batch,
    Checkpoint,
    Commit,
    CommittedBatch,
    Envelope,
    FetchState,
    Prepare,
    PrePrepare,
    Proposal,
    Request,
    StateNodes,
    StateSummary,
    TreeNode,
)


@pytest.fixture
def target() -> Target:
    """A backup that may vote."""
    made = Target()
    made.node.core.gate.release("unconfirmed")
    return made


def batch_of(*requests: Envelope) -> tuple[Batch, bytes]:
    batch = Batch(START.wall, requests)
    return batch, batch_digest(START.wall, map(request_digest, requests))


def committed(target: Target, seq: int, request: Request) -> bytes:
    batch, digest = batch_of(target.sign(request))
    votes = tuple(target.sign(Commit(replica, 0, seq, digest)) for replica in (0, 2, 3))
    return frame(CommittedBatch(votes, batch))


def put(target: Target, bundle: int, size: int) -> Request:
    operation = encode_operation(Put(b"key-%d" % bundle, b"x" * size))
    return Request(target.clients[0].public_key, 1, bundle, 0, False, (operation,))


@pytest.mark.rule("R43")
def test_a_vote_that_an_earlier_frame_of_the_turn_makes_useless_is_not_verified(target):
    batch, digest = batch_of(target.sign(Request(target.clients[0].public_key, 1, 0, 0, False, ())))
    proposal = Proposal(target.sign(PrePrepare(0, 0, 1, digest)), batch)
    target.take(frame(proposal), 0)
    before = target.verifications
    for backup in (2, 3):
        target.node.receive(frame(target.sign(Prepare(backup, 0, 1, digest))), backup)
    target.node.run()
    assert target.verifications - before == 1
    assert target.counters["vote-not-needed"] == 1


def test_the_state_is_flushed_at_checkpoints_alone(target):
    """So that after a restart of everybody there is a certified state to fetch (R23)."""
    opening = Request(target.clients[0].public_key, 1, 0, 0, False, ())
    target.take(committed(target, 1, opening), 0)
    interval = target.config.parameters.checkpoint_interval
    for seq in range(2, 2 * interval):
        target.take(committed(target, seq, put(target, seq - 1, 100)), 0)
        assert target.node.store.summary().seq == seq - seq % interval


def served(target: Target, seq: int) -> StateNodes:
    """What it answers to replica 2, which asks for the roots of the state after `seq`."""
    target.take(frame(target.sign(FetchState(2, seq, (b"\x00", b"\x01")))), 2)
    to, packet = target.wire.sent[-1]
    assert to == 2
    assert isinstance(packet, Envelope)
    answer = decode_body(packet.body)
    assert isinstance(answer, StateNodes)
    return answer


@pytest.mark.rule("R23")
def test_a_replica_that_replaces_its_state_keeps_no_older_ones_in_its_file(target):
    """Kept beside the new one, the old state and all steps between took three times the room."""
    opening = Request(target.clients[0].public_key, 1, 0, 0, False, ())
    interval = target.config.parameters.checkpoint_interval
    target.take(committed(target, 1, opening), 0)
    for seq in range(2, interval + 1):
        target.take(committed(target, seq, put(target, seq - 1, 100)), 0)
    assert served(target, interval).nodes
    summary = StateSummary(10 * interval, START.wall, b"a" * 32, b"s" * 32)
    for voter in (0, 2, 3):
        vote = Checkpoint(voter, summary.seq, checkpoint_digest(summary))
        target.take(frame(target.sign(vote)), voter)
    for _ in range(10):  # heartbeats without progress
        target.time = Instant(target.time.mono + 100_000, target.time.wall + 100_000)
        target.node.run()
    root = TreeNode(b"\x00", (b"d" * 32,) * 16, ())
    for source in (0, 2, 3):
        target.take(frame(target.sign(StateNodes(source, summary, (root,)))), source)
    assert target.node.store.transfer_target == summary
    assert not served(target, interval).nodes
