"""Valid frames with random damage: refused and counted, no exception, and memory stays flat."""

import gc
import tracemalloc
from random import Random

from hypothesis import given, settings, strategies as st
from target import Target, frame

from pbft.codec import MalformedMessage, decode_packet
from pbft.messages import CheckpointProof

TARGET = Target()
FRAMES = [
    *((frame(packet), 2) for packet in TARGET.packets()),
    *((frame(TARGET.sign(body)), TARGET.peer_of(body)) for body in TARGET.bodies()),
]
MOST_REASONS = 60

frames = st.sampled_from(FRAMES)
places = st.floats(0, 1, exclude_max=True)
interesting = st.sampled_from(
    [bytes([code]) for code in b"\x00\x7f\x80\x90\x9f\xa0\xc0\xc1\xc3\xc4\xe0\xff"]
    + [code + b"\xff" * 8 for code in (b"\xc6", b"\xcb", b"\xcf", b"\xdc", b"\xdd", b"\xdf")]
)
damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "put", "insert", "delete", "cut", "splice"]),
        places,
        st.integers(0, 7),
        interesting | st.binary(min_size=1, max_size=8),
        frames,
    ),
    min_size=1,
    max_size=4,
)


def damaged(raw, damage):
    kind, place, bit, new, (other, _) = damage
    at = int(place * len(raw))
    match kind:
        case "flip" if raw:
            return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
        case "put":
            return raw[:at] + new + raw[at + len(new) :]
        case "insert":
            return raw[:at] + new + raw[at:]
        case "delete":
            return raw[:at] + raw[at + 1 + bit :]
        case "cut":
            return raw[:at]
        case "splice":
            return raw[:at] + other[int(place * len(other)) :]
    return raw


@settings(max_examples=600, deadline=None)
@given(frames, damages)
def test_a_damaged_frame_is_refused_and_counted_once_and_raises_nothing(valid, several):
    raw, peer = valid
    for damage in several:
        raw = damaged(raw, damage)
    if any(raw == known for known, _ in FRAMES) or still_a_proof(raw):
        return
    before = sum(TARGET.counters.values())
    assert TARGET.take(raw, peer) is None
    assert sum(TARGET.counters.values()) == before + 1
    assert len(TARGET.counters) < MOST_REASONS


def still_a_proof(raw):
    """One of more checkpoints than a weak quorum can be cut out without harm."""
    try:
        return isinstance(decode_packet(raw), CheckpointProof)
    except MalformedMessage:
        return False


def test_memory_stays_flat_however_many_damaged_frames_there_are():
    target, random = Target(), Random(5)

    def batter(times):
        for _ in range(times):
            raw, peer = random.choice(FRAMES)
            at = random.randrange(len(raw))
            target.take(raw[:at] + random.randbytes(3) + raw[at + 3 :], peer)
        target.wire.sent.clear()
        gc.collect()

    batter(300)
    tracemalloc.start()
    try:
        batter(300)
        before = tracemalloc.get_traced_memory()[0]
        batter(1500)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
