"""Well-formed, well-signed messages with the most extreme numbers: the node takes no harm.

One replica and both clients are the attacker's; whatever they say, a turn raises nothing (a halt
included), and afterwards an honest batch is still executed.
"""

from cores import seen
from hypothesis import HealthCheck, given, settings, strategies as st
from target import START, D, Target, frame

from pbft.apps import kv_codec
from pbft.codec import encode
from pbft.config import Parameters
from pbft.core.batches import content_of
from pbft.core.context import Instant
from pbft.messages import (
    MAX_REPLICAS,
    Batch,
    Checkpoint,
    Commit,
    FetchBatch,
    FetchBatches,
    FetchState,
    Incarnation,
    IncarnationSeen,
    Prepare,
    PrePrepare,
    Proposal,
    Read,
    Recovery,
    Request,
    SlotReport,
    StateNodes,
    StateSummary,
    Status,
    Suspect,
    TreeNode,
    ViewChange,
)

LIAR = 3
CLIENTS = [signer.public_key for signer in Target().clients]
SMALL = Parameters(checkpoint_interval=4, window=8, client_window=8, sessions_per_client=2)

me = st.just(LIAR)
numbers = st.integers(0, 2**63 - 1) | st.sampled_from(
    [*range(14), 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**62, 2**63 - 9, 2**63 - 2, 2**63 - 1]
)
digests = st.sampled_from([D, bytes(32)])
paths = st.binary(max_size=66) | st.sampled_from([b"", b"\0", b"\1", b"\2", b"\0\x10", bytes(66)])


def several(strategy, least, most):
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


nodes = st.builds(
    TreeNode,
    paths,
    several(digests, 0, 16),
    several(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), 0, 4),
)
summaries = st.builds(StateSummary, numbers, numbers, digests, digests)
reports = st.builds(SlotReport, numbers, st.booleans(), st.booleans())
said = st.one_of(
    st.builds(Prepare, me, numbers, numbers, digests),
    st.builds(Commit, me, numbers, numbers, digests),
    st.builds(Checkpoint, me, numbers, digests),
    st.builds(Suspect, me, numbers),
    st.builds(Status, me, numbers, st.booleans(), numbers, numbers, several(reports, 0, 64)),
    st.builds(FetchBatches, me, numbers, numbers),
    st.builds(FetchBatch, me, numbers, digests),
    st.builds(FetchState, me, numbers, several(paths, 1, 64)),
    st.builds(StateNodes, me, summaries, several(nodes, 0, 5)),
    st.builds(Incarnation, me, numbers, numbers, st.booleans()),
    st.builds(
        IncarnationSeen,
        me,
        st.integers(0, MAX_REPLICAS - 1),
        numbers,
        st.just(0) | numbers,
        numbers,
        numbers,
        numbers,
        numbers,
        st.just(()),
    ),
    st.builds(Recovery, me, numbers, numbers, numbers),
    st.builds(ViewChange, me, numbers, st.just(0), digests, st.just(()), st.just(())),
)
operations = st.binary(max_size=40) | st.sampled_from(
    [
        kv_codec.encode(kv_codec.Put(b"a", b"b")),
        kv_codec.encode(kv_codec.Range(b"a")),
        kv_codec.encode(kv_codec.Delete(b"a")),
    ]
)
requests = st.builds(
    Request,
    st.sampled_from(CLIENTS),
    numbers,
    numbers,
    numbers,
    st.booleans(),
    several(operations, 0, 4),
)
moderately = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def voting():
    """A node that has heard that its memory is whole."""
    target = Target(parameters=SMALL)
    began = target.sign(Incarnation(1, 1, 7, True))
    for known, starts in ((0, ()), (1, (began,))):
        for replica in (0, 2, LIAR):
            answer = seen(replica, 1, 7, known, starts=starts)
            target.take(frame(target.sign(answer)), replica)
    return target


def order(target, seq, envelopes):
    """Let the others propose and agree on a batch."""
    batch = Batch(START.wall + seq, tuple(envelopes))
    digest = content_of(batch).digest
    target.take(frame(Proposal(target.sign(PrePrepare(0, 0, seq, digest)), batch)), 0)
    for vote in (Prepare(2, 0, seq, digest), Prepare(LIAR, 0, seq, digest)):
        target.take(frame(target.sign(vote)), vote.replica)
    for replica in (0, 2, LIAR):
        target.take(frame(target.sign(Commit(replica, 0, seq, digest))), replica)


def seal(target, request):
    return target.seal(target.clients[CLIENTS.index(request.client)], encode(request))


@moderately
@given(st.lists(said, min_size=1, max_size=30), st.integers(0, 30_000))
def test_a_replica_that_says_anything_does_not_stop_another(bodies, pause):
    target = voting()
    for body in bodies:
        target.take(frame(target.sign(body)), LIAR)
        target.time = Instant(target.time.mono + pause, target.time.wall + pause)
        target.node.run()
    opening = Request(CLIENTS[0], 1, 0, 0, False, ())
    order(target, 1, [seal(target, opening)])
    assert target.node.store.seq == 1


@moderately
@given(st.lists(st.lists(requests, min_size=1, max_size=4), min_size=1, max_size=8))
def test_clients_that_ask_for_anything_do_not_stop_a_replica(batches):
    target = voting()
    for seq, batch in enumerate(batches, 1):
        envelopes = [seal(target, request) for request in batch]
        for request, envelope in zip(batch, envelopes, strict=True):
            target.take(frame(envelope), request.client)
            if request.operations:
                read = Read(request.client, request.session, 0, request.operations)
                target.take(frame(seal(target, read)), request.client)
        order(target, seq, envelopes)
        assert target.node.store.seq == seq
