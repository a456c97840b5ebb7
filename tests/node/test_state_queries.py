"""What a replica shows to clients of its certified states, and how much of it."""

import pytest
from msgspec import structs
from notary import Notary

from pbft.messages import StateSummary
from pbft.node.state_queries import SHOWN_BURST_BYTES
from pbft.proofs import path_of
from pbft.storage.tree_node import place_of

CONTENT = {b"key-%d" % n: b"value-%d" % n for n in range(2000)}


def filled() -> Notary:
    notary = Notary()
    notary.put(CONTENT)
    return notary


def test_the_newest_certified_state_is_shown_with_its_proof() -> None:
    notary = filled().certify()
    notary.put({b"more": b"1"})
    notary.store.flush()
    notary.pins.pin(notary.store.pin(), 0)  # executed, but not stable yet
    answer = notary.query(0, b"\x00")
    assert answer is not None
    assert answer.summary.seq == 1
    assert answer.proof == notary.proofs[1]
    assert [node.path for node in answer.nodes] == [b"\x00"]


@pytest.mark.rule("R22")
def test_a_replica_whose_own_state_is_not_the_certified_one_does_not_show_it_as_such() -> None:
    notary = filled().certify()
    other = Notary()
    other.put({b"key-7": b"wrong"})
    notary.proofs = other.certify().proofs
    assert notary.query(0, b"\x00") == nothing(notary)


def nothing(notary: Notary):
    answer = notary.query(99, b"\x00")
    assert answer is not None
    assert (answer.summary, answer.proof, answer.nodes) == (
        StateSummary(0, 0, bytes(32), bytes(32)),
        (),
        (),
    )
    return answer


def test_what_is_not_here_is_said_not_to_be() -> None:
    notary = filled()
    assert notary.query(0, b"\x00") == nothing(notary)
    notary.certify()
    assert notary.query(1, b"\x00") != nothing(notary)
    assert notary.query(2, b"\x00") == nothing(notary)


def test_a_key_s_path_brings_the_whole_way_and_a_shorter_one_the_node_there() -> None:
    notary = filled().certify()
    path = path_of(b"key-7")
    way = notary.query(0, path).nodes
    assert [node.path for node in way] == [path[: n + 1] for n in range(len(way))]
    assert len(way) >= 3
    assert b"key-7" in dict(way[-1].entries)
    assert notary.query(1, way[1].path, way[2].path).nodes == way[1:3]
    both = notary.query(0, path, path_of(b"key-8")).nodes
    assert len({node.path for node in both}) == len(both) > len(way)


def test_where_nothing_lies_the_way_ends_above() -> None:
    notary = Notary()
    assert notary.certify().query(0, path_of(b"a")) is not None
    notary.put({key: b"" for key in CONTENT if place_of(key)[0] != 7})
    notary.certify()
    absent = next(key for key in CONTENT if place_of(key)[0] == 7)
    assert [node.path for node in notary.query(0, path_of(absent)).nodes] == [b"\x00"]


@pytest.mark.parametrize("path", [b"", b"\x01", b"\x02", b"\x00\x10", b"\x00" * 66])
def test_sessions_and_what_is_no_path_are_not_shown(path: bytes) -> None:
    notary = filled()
    notary.store.sessions.put(b"o", b"the result of another client")
    assert notary.certify().query(0, path).nodes == ()
    assert [node.path for node in notary.query(0, path, b"\x00").nodes] == [b"\x00"]


def test_an_answer_is_bounded_but_shows_something() -> None:
    notary = Notary()
    notary.put({b"large-%d" % n: bytes(400_000) for n in range(40)})
    notary.certify()
    root = notary.query(0, b"\x00").nodes[0]
    paths = tuple(b"\x00" + bytes([i]) for i, d in enumerate(root.children) if d != bytes(32))
    nodes = notary.query(1, *paths).nodes
    assert 1 <= len(nodes) < len(paths)
    assert [node.path for node in nodes] == list(paths[: len(nodes)])


@pytest.mark.rule("R43")
def test_each_client_has_a_budget_of_its_own() -> None:
    notary = Notary()
    notary.put({b"large": bytes(SHOWN_BURST_BYTES // 4)})
    notary.certify()
    shown = [notary.query(1, b"\x00") is not None for _ in range(100)]
    assert 3 <= shown.count(True) <= 5
    assert notary.query(1, b"\x00", client=b"o" * 32) is not None
    notary.now = 10_000_000
    assert notary.query(1, b"\x00") is not None


@pytest.mark.rule("R43")
def test_asking_in_vain_costs_as_well() -> None:
    notary = filled().certify()
    paths = (b"\x01",) * 64
    shown = [notary.query(9, *paths) is not None for _ in range(1000)]
    assert shown.count(True) < 200


def test_an_answer_is_signed_and_names_its_question() -> None:
    notary = filled().certify()
    answer = notary.query(0, b"\x00")
    assert (answer.replica, answer.client, answer.nonce) == (0, notary.client.public_key, 7)
    assert structs.replace(answer, nonce=8) != answer
