"""Backups: a walk that believes nobody, and a file that cannot be changed unnoticed."""

import asyncio
import io

import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs
from notary import Notary, lie

from client.backup import back_up
from client.errors import DeadlineExceeded
from pbft.backups import FORMAT, BackupHeader, BackupReader, BackupWriter, is_backup
from pbft.messages import TreeNode
from pbft.proofs import InvalidProof, decode_proof

CONTENT = {b"key-%d" % n: b"value-%d" % n for n in range(3000)}


def filled(content=CONTENT) -> Notary:
    notary = Notary()
    notary.put(content)
    return notary.certify()


def backed_up(notary: Notary, **wishes) -> bytes:
    file = io.BytesIO()
    wishes = {"deadline": 5.0, **wishes}
    asyncio.run(back_up(notary, notary.config, file, **wishes))
    return file.getvalue()


def content_of(raw: bytes, notary: Notary) -> dict[bytes, bytes]:
    reader = BackupReader(io.BytesIO(raw), notary.config)
    return {key: value for bucket in reader.buckets() for key, value in bucket.entries}


@pytest.mark.parametrize("count", [0, 1, 20, 40, 3000])
def test_a_backup_holds_all_of_the_certified_state(count: int) -> None:
    notary = filled(dict(list(CONTENT.items())[:count]))
    raw = backed_up(notary)
    assert is_backup(raw[:32])
    assert content_of(raw, notary) == dict(list(CONTENT.items())[:count])
    assert BackupReader(io.BytesIO(raw), notary.config).header.summary.seq == 1


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=9), max_size=800))
def test_whatever_the_state_the_backup_is_that_state(content) -> None:
    notary = filled(content)
    assert content_of(backed_up(notary), notary) == content


def test_liars_and_silent_replicas_change_nothing_and_liars_are_not_asked_again() -> None:
    notary = filled()
    notary.twists = {0: lie, 1: lambda _: None, 3: lambda a: structs.replace(a, nodes=())}
    assert content_of(backed_up(notary), notary) == CONTENT
    walked = [replica for replica, seq in notary.asked if seq]
    assert walked.count(2) > 10
    assert walked.count(0) <= 3, "it tells the truth about inner nodes"
    assert walked.count(1) == 1, "each time costs its whole patience"
    assert walked.count(3) == 1


def test_the_newest_state_that_anybody_shows_is_taken() -> None:
    notary = filled({b"a": b"old"})
    stale = notary.query(0, b"\x00")
    notary.put({b"a": b"new"})
    notary.certify()
    notary.twists = dict.fromkeys((0, 1, 2), lambda answer: stale if answer.proof else None)
    assert content_of(backed_up(notary), notary) == {b"a": b"new"}


def test_a_state_that_disappears_is_given_up_for_the_next_one() -> None:
    notary = filled()
    late = structs.replace(notary.query(0, b"\x00").summary, seq=0)
    moved = []

    def move_on(answer):
        if len(notary.asked) > 12 and not moved:
            moved.append(notary.put({b"later": b"1"}))
            notary.certify()
        gone = moved and answer.summary.seq == 1
        return structs.replace(answer, summary=late, nodes=()) if gone else answer

    notary.twists = dict.fromkeys(range(4), move_on)
    raw = backed_up(notary)
    assert moved
    assert content_of(raw, notary) == {**CONTENT, b"later": b"1"}


def test_nothing_certified_or_nothing_fresh_ends_with_the_deadline() -> None:
    notary = Notary()
    with pytest.raises(DeadlineExceeded, match="no replica shows a stable checkpoint"):
        backed_up(notary, deadline=0.05)
    notary.put({b"a": b"1"})
    notary.certify()
    with pytest.raises(DeadlineExceeded, match="checkpoint at or after 5"):
        backed_up(notary, deadline=0.05, min_seq=5)


def test_whatever_byte_is_changed_the_backup_is_refused() -> None:
    notary = filled(dict(list(CONTENT.items())[:60]))
    raw = backed_up(notary)
    for at in range(len(raw)):
        damaged = raw[:at] + bytes([raw[at] ^ 0x21]) + raw[at + 1 :]
        with pytest.raises(InvalidProof):
            content_of(damaged, notary)
    for length in range(0, len(raw), 7):
        with pytest.raises(InvalidProof):
            content_of(raw[:length], notary)
    with pytest.raises(InvalidProof):
        content_of(raw + b"\x00", notary)


def rewritten(notary: Notary, header: BackupHeader, buckets: list[TreeNode]) -> bytes:
    """What somebody who can compute digests would write."""
    file = io.BytesIO()
    writer = BackupWriter(file, header)
    writer._root.add = lambda _: None
    writer._root.root = lambda: header.summary.application_root
    for bucket in buckets:
        writer.add(bucket)
    writer.finish()
    return file.getvalue()


@pytest.mark.rule("R21")
def test_a_forged_backup_is_refused_although_its_own_digest_is_right() -> None:
    notary = filled()
    raw = backed_up(notary)
    reader = BackupReader(io.BytesIO(raw), notary.config)
    header, buckets = reader.header, list(reader.buckets())
    assert rewritten(notary, header, buckets) == raw
    lied = structs.replace(buckets[0], entries=((buckets[0].entries[0][0], b"lie"),))
    inner = TreeNode(b"\x00", (b"d" * 32,) * 16, ())
    for wrong in (
        buckets[1:],
        buckets[:-1],
        [lied, *buckets[1:]],
        [buckets[1], buckets[0], *buckets[2:]],
        [buckets[0], *buckets],
        [inner, *buckets],
        [structs.replace(buckets[0], path=b"\x01"), *buckets[1:]],
        [],
    ):
        with pytest.raises(InvalidProof):
            content_of(rewritten(notary, header, wrong), notary)
    few = structs.replace(header, checkpoints=header.checkpoints[:2])
    with pytest.raises(InvalidProof, match="too few signers"):
        content_of(rewritten(notary, few, buckets), notary)
    other = Notary()
    other.config = structs.replace(other.config, clients=())
    with pytest.raises(InvalidProof, match="of another cluster"):
        content_of(raw, other)


def test_a_backup_is_no_proof_and_a_proof_no_backup() -> None:
    notary = filled()
    raw = backed_up(notary)
    with pytest.raises(InvalidProof, match="no proof that pbft has written"):
        decode_proof(raw)
    with pytest.raises(InvalidProof):
        content_of(b"\x00\x00\x00\x02\x91\x01", notary)
    newer = raw[:17] + bytes([FORMAT + 1]) + raw[18:]
    assert is_backup(newer[:32])
    with pytest.raises(InvalidProof, match=f"another format than {FORMAT}"):
        content_of(newer, notary)
