"""Proofs of a state, checked with nothing but the configuration: complete, and not to be forged."""

import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs
from notary import Notary, lie

from client.proofs import verify_proof
from pbft.apps.kv_codec import Compact, Delete, Put
from pbft.codec import checkpoint_digest
from pbft.messages import Checkpoint, Envelope, Prepare, TreeNode
from pbft.proofs import (
    FORMAT,
    KEY_VALUE,
    MAP,
    InvalidProof,
    StateProof,
    decode_proof,
    encode_proof,
    path_of,
)
from pbft.storage.tree_node import bucket_digest, inner_digest

CONTENT = {b"key-%d" % n: b"value-%d" % n for n in range(1500)}
HERE, GONE = b"key-7", b"no such key"


@pytest.fixture(scope="module")
def notary() -> Notary:
    """A state whose tree has several levels."""
    made = Notary()
    made.put(CONTENT)
    return made.certify()


def refused(notary: Notary, proof: StateProof, why: str) -> None:
    with pytest.raises(InvalidProof, match=why):
        verify_proof(proof, notary.config)


# --- what a proof says -----------------------------------------------------------------------


@pytest.mark.parametrize("key", [HERE, GONE])
def test_a_proof_tells_the_value_or_that_there_is_none(notary: Notary, key: bytes) -> None:
    found = notary.prove(key)
    assert found.value == CONTENT.get(key)
    assert (found.seq, found.time) == (1, 1_000_000)
    assert found.signers == (0, 1, 3)
    raw = encode_proof(found.proof)
    assert verify_proof(decode_proof(raw), notary.config) == found
    assert len(found.proof.nodes) >= 3


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=20), max_size=600),
    st.binary(min_size=1, max_size=3),
)
def test_every_key_of_every_map_can_be_proved_there_or_absent(content, other) -> None:
    notary = Notary()
    notary.put(content)
    notary.certify()
    for key in [other, *list(content)[:5]]:
        proof = decode_proof(encode_proof(notary.proof(key)))
        assert verify_proof(proof, notary.config).value == content.get(key)


def test_a_large_value_is_proved_too() -> None:
    notary = Notary()
    notary.put({b"large": bytes(2_000_000), **CONTENT})
    proof = decode_proof(encode_proof(notary.certify().proof(b"large")))
    assert verify_proof(proof, notary.config).value == bytes(2_000_000)


def test_of_the_key_value_store_the_current_value_is_proved() -> None:
    notary = Notary()
    notary.do(*(Put(b"other-%d" % n, b"x") for n in range(200)))
    notary.do(Put(b"color", b"blue"), Put(b"gone", b"soon"))
    notary.do(Put(b"color", b"green"), Delete(b"gone"))
    notary.do(Compact(202))
    notary.certify()
    color = notary.prove(b"color", KEY_VALUE)
    assert (color.value, color.version) == (b"green", 2)
    assert color.mod_revision > color.create_revision > 200
    for absent in (b"gone", b"never", b"colo", b"color2"):
        assert notary.prove(absent, KEY_VALUE).value is None
    assert verify_proof(color.proof, notary.config) == color
    assert notary.prove(b"color").value is None, "the map has no key of that name"


def test_a_map_that_is_no_key_value_store_is_not_taken_for_one() -> None:
    notary = Notary()
    notary.put({b"kcolor": b"nonsense"})
    proof = structs.replace(notary.certify().proof(b"kcolor"), subject=KEY_VALUE, key=b"color")
    refused(notary, proof, "not that of a key-value store")


def test_freshness_is_demanded_by_a_sequence_number(notary: Notary) -> None:
    proof = notary.proof(HERE)
    assert verify_proof(proof, notary.config, min_seq=1).value == CONTENT[HERE]
    with pytest.raises(InvalidProof, match="speaks for the state after 1, not 2"):
        verify_proof(proof, notary.config, min_seq=2)


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "subject"), [(HERE, MAP), (GONE, MAP), (b"color", KEY_VALUE)])
def test_whatever_bit_is_flipped_a_proof_is_refused_or_still_true(key: bytes, subject: int) -> None:
    notary = Notary()
    notary.put({HERE: CONTENT[HERE], **dict(list(CONTENT.items())[:40])})
    notary.do(Put(b"color", b"blue"))
    notary.certify()
    raw = encode_proof(notary.proof(key, subject))
    believed = 0
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = verify_proof(decode_proof(bytes(damaged)), notary.config)
        except InvalidProof:
            continue
        believed += 1
        assert (found.seq, found.time) == (2, 2_000_000)
        assert found.key != key or found.proof.subject != subject
        assert found.value == notary.prove(found.key, found.proof.subject).value
    assert believed < 8 * len(key) + 2


def test_a_truncated_or_longer_file_is_refused(notary: Notary) -> None:
    raw = encode_proof(notary.proof(HERE))
    for length in range(len(raw)):
        with pytest.raises(InvalidProof):
            decode_proof(raw[:length])
    for more in (b"\x00", raw):
        with pytest.raises(InvalidProof):
            decode_proof(raw + more)


def test_a_proof_of_another_format_is_refused_with_its_reason(notary: Notary) -> None:
    raw = encode_proof(notary.proof(HERE))
    newer = raw[:12] + bytes([FORMAT + 1]) + raw[13:]
    with pytest.raises(InvalidProof, match=f"another format than {FORMAT}"):
        decode_proof(newer)


# --- certificates that prove nothing ---------------------------------------------------------


def test_a_proof_of_another_cluster_is_refused(notary: Notary) -> None:
    other = structs.replace(notary.config, clients=())
    proof = notary.proof(HERE)
    with pytest.raises(InvalidProof, match="about another cluster"):
        verify_proof(proof, other)
    with pytest.raises(InvalidProof, match="signature of replica 0"):
        verify_proof(structs.replace(proof, cluster_id=other.cluster_id), other)


@pytest.mark.rule("R21")
def test_fewer_than_a_quorum_of_distinct_members_prove_nothing(notary: Notary) -> None:
    proof = notary.proof(HERE)
    zero, one, three = proof.checkpoints
    stranger = Checkpoint(7, 1, checkpoint_digest(proof.summary))
    for votes, why in [
        ((), "too few signers"),
        ((zero, one), "too few signers"),
        ((zero, one, one), "repeated or unknown signers"),
        ((zero, one, three, three), "repeated or unknown signers"),
        ((zero, one, notary.sign(stranger, by=2)), "repeated or unknown signers"),
        ((zero, one, three, zero, one), "more votes than replicas"),
    ]:
        refused(notary, structs.replace(proof, checkpoints=votes), why)


@pytest.mark.rule("R21")
def test_votes_that_do_not_match_or_are_not_signed_prove_nothing(notary: Notary) -> None:
    proof = notary.proof(HERE)
    digest = checkpoint_digest(proof.summary)
    zero, one, _ = proof.checkpoints
    for last, why in [
        (notary.sign(Checkpoint(3, 2, digest)), "checkpoints that do not match"),
        (notary.sign(Checkpoint(3, 1, b"d" * 32)), "checkpoints that do not match"),
        (notary.sign(Checkpoint(3, 1, digest), by=2), "signature of replica 3"),
        (notary.sign(Prepare(3, 1, 1, digest)), "another type inside a certificate"),
        (Envelope(b"nonsense", bytes(64)), "its certificate does not hold"),
    ]:
        refused(notary, structs.replace(proof, checkpoints=(zero, one, last)), why)


@pytest.mark.rule("R21")
def test_a_summary_that_was_not_signed_proves_nothing(notary: Notary) -> None:
    proof = notary.proof(HERE)
    for change in (
        {"seq": 2},
        {"time": 5},
        {"application_root": b"r" * 32},
        {"sessions_root": b"r" * 32},
    ):
        summary = structs.replace(proof.summary, **change)
        refused(notary, structs.replace(proof, summary=summary), "one of another state")


# --- trees that prove nothing ----------------------------------------------------------------


def with_last(proof: StateProof, last: TreeNode) -> StateProof:
    return structs.replace(proof, nodes=(*proof.nodes[:-1], last))


NOT_NAMED = "the certified root does not name"


def test_an_entry_more_or_less_or_another_one_is_noticed(notary: Notary) -> None:
    proof = notary.proof(HERE)
    bucket = proof.nodes[-1]
    entries = bucket.entries
    mine = [pair for pair in entries if pair[0] == HERE]
    assert mine
    without = tuple(pair for pair in entries if pair[0] != HERE)
    lie = tuple((key, b"lie" if key == HERE else value) for key, value in entries)
    more = tuple(sorted((*entries, near(bucket))))
    for wrong in (without, lie, more, (*entries, entries[0]), ()):
        refused(notary, with_last(proof, structs.replace(bucket, entries=wrong)), NOT_NAMED)


def near(bucket: TreeNode) -> tuple[bytes, bytes]:
    """An entry that would belong into this bucket."""
    names = (b"forged-%d" % n for n in range(10**6))
    key = next(name for name in names if path_of(name).startswith(bucket.path))
    return key, b"forged"


def test_a_node_from_elsewhere_in_the_tree_is_noticed(notary: Notary) -> None:
    proof = notary.proof(HERE)
    bucket, parent = proof.nodes[-1], proof.nodes[-2]
    sibling = next(
        node
        for key in CONTENT
        for node in notary.proof(key).nodes[-1:]
        if node.path[:-1] == parent.path and node.path != bucket.path
    )
    moved = structs.replace(sibling, path=bucket.path)
    refused(notary, with_last(proof, sibling), "does not lead to the key")
    refused(notary, with_last(proof, moved), NOT_NAMED)
    refused(notary, with_last(proof, structs.replace(bucket, path=bucket.path + b"\0")), NOT_NAMED)
    refused(notary, structs.replace(proof, nodes=proof.nodes[1:]), NOT_NAMED)
    refused(notary, structs.replace(proof, nodes=proof.nodes[::-1]), NOT_NAMED)
    refused(notary, structs.replace(proof, nodes=proof.nodes[:-1]), "does not lead to the key")


def test_an_inner_node_passes_for_no_bucket_and_the_other_way_round(notary: Notary) -> None:
    proof = notary.proof(HERE)
    bucket, parent = proof.nodes[-1], proof.nodes[-2]
    as_bucket = TreeNode(parent.path, (), bucket.entries)
    refused(notary, structs.replace(proof, nodes=(*proof.nodes[:-2], as_bucket)), NOT_NAMED)
    as_inner = TreeNode(bucket.path, (bytes(32),) * 16, ())
    refused(notary, with_last(proof, as_inner), NOT_NAMED)
    for children in ((), (b"c" * 32,) * 15):
        both = TreeNode(bucket.path, children, bucket.entries if children else ())
        refused(notary, with_last(proof, both), NOT_NAMED)
    joined = b"".join(parent.children)
    assert inner_digest(parent.path, joined) != bucket_digest(parent.path, joined), "by level"


def test_a_key_that_is_there_cannot_be_proved_absent(notary: Notary) -> None:
    """Neither by an empty child nor by the proof of another key's absence."""
    proof = notary.proof(HERE)
    parent = proof.nodes[-2]
    branch = proof.nodes[-1].path[-1]
    children = tuple(bytes(32) if i == branch else d for i, d in enumerate(parent.children))
    emptied = structs.replace(parent, children=children)
    refused(notary, structs.replace(proof, nodes=(*proof.nodes[:-2], emptied)), NOT_NAMED)
    other = structs.replace(notary.proof(GONE), key=HERE)
    refused(notary, other, "does not lead to the key")
    empty = structs.replace(proof.summary, application_root=bytes(32))
    refused(notary, structs.replace(proof, summary=empty, nodes=()), "another state")


# --- asking one replica after the other ------------------------------------------------------


BLUE = b"blue" * 1000


def colored() -> Notary:
    """A hundred keys with values that lie apart from their entries, in a certified state."""
    notary = Notary()
    notary.do(*(Put(b"color-%d" % n, BLUE) for n in range(100)))
    notary.certify()
    return notary


def test_whoever_lies_or_is_silent_or_has_nothing_is_changed() -> None:
    notary = colored()
    nothing = structs.replace(notary.query(0, b"\x00").summary, seq=0)
    notary.twists = {
        0: lambda _: None,
        1: lie,
        2: lambda answer: structs.replace(answer, summary=nothing, proof=(), nodes=()),
    }
    found = notary.prove(b"color-7", KEY_VALUE)
    assert found.value == BLUE
    assert [replica for replica, _ in notary.asked] == [0, 1, 2, 3, 3]


def test_a_replica_that_shows_other_nodes_than_it_was_asked_for_is_changed() -> None:
    notary = colored()
    notary.twists = {0: lambda answer: structs.replace(answer, nodes=answer.nodes[:1])}
    assert notary.prove(b"color-7", KEY_VALUE).value == BLUE
    assert [replica for replica, _ in notary.asked] == [0, 0, 1, 1]


def test_a_state_that_disappears_between_two_questions_is_asked_for_again() -> None:
    notary = colored()
    late = structs.replace(notary.query(0, b"\x00").summary, seq=0)
    notary.twists = {
        0: lambda answer: answer if answer.proof else structs.replace(answer, summary=late)
    }
    assert notary.prove(b"color-7", KEY_VALUE).value == BLUE
    assert notary.asked == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_stale_replica_is_changed_where_freshness_is_demanded() -> None:
    notary = Notary()
    notary.put({b"a": b"old"})
    stale = notary.certify().query(0, path_of(b"a"))
    notary.put({b"a": b"new"})
    notary.certify()
    notary.twists = {0: lambda _: stale}
    assert notary.prove(b"a").value == b"old", "true at its sequence number"
    assert notary.prove(b"a", min_seq=2).value == b"new"


def test_the_deadline_s_error_says_what_was_wrong() -> None:
    notary = Notary()
    with pytest.raises(Exception, match="no stable checkpoint to show yet"):
        notary.prove(b"a", deadline=0.05)
    notary.put({b"a": b"old"})
    notary.certify()
    with pytest.raises(Exception, match="newest stable checkpoint is 1, before 9"):
        notary.prove(b"a", min_seq=9, deadline=0.05)
    notary.twists = dict.fromkeys(range(4), lie)
    with pytest.raises(Exception, match="certified root does not name"):
        notary.prove(b"a", deadline=0.05)
