"""Whole clusters of cores through faulty primaries, partitions and liars: safe, and live again."""

from collections.abc import Callable

import pytest
from cores import Cores
from view_changes import (
    cut_off,
    live,
    new_view,
    nothing_lost,
    parted,
    start,
    view_change,
)

from pbft.codec import decode_body
from pbft.core import events
from pbft.messages import Commit, Envelope, NewView, Packet, Prepare, ViewChange

SIZES = [4, 5, 6, 7]


def cluster(n: int) -> Cores:
    cores = Cores(n)
    start(cores)
    cores.run()
    return cores


def ask(cores: Cores, bundle: int = 1, *replicas: int) -> None:
    """A client sends a request to these, or to all."""
    for i in replicas or range(len(cores.cores)):
        cores.ask(i, cores.request(bundle=bundle))
        cores.step(i, events.TurnEnded())


def executed(cores: Cores, i: int) -> list[bytes]:
    """The digests that core `i` has executed, in order."""
    slots = [cores.cores[i].log.get(seq) for seq in range(1, cores.states[i] + 1)]
    return [slot.committed_digest for slot in slots if slot]


def assert_agreed(cores: Cores, *but: int) -> None:
    """All have executed the same, and something, except those whom nobody reaches."""
    histories = [executed(cores, i) for i in range(len(cores.cores)) if i not in but]
    assert histories[0]
    assert histories == [histories[0]] * len(histories)


def sends_no(kind: type, *mute: int) -> Callable[[int, int, Packet], bool]:
    """These replicas' messages of one kind are lost."""

    def lose(sender: int, _receiver: int, packet: Packet) -> bool:
        is_one = isinstance(packet, Envelope) and isinstance(decode_body(packet.body), kind)
        return sender in mute and is_one

    return lose


# -- quorums of every size


@pytest.mark.rule("R31")
@pytest.mark.rule("R6")
@pytest.mark.parametrize("n", SIZES)
def test_a_dead_primary_is_replaced_and_its_request_executed(n: int) -> None:
    cores = cluster(n)
    ask(cores)
    live(cores, 3000, cut_off(0))
    assert_agreed(cores, 0)
    assert {core.views.view for core in cores.cores[1:]} == {1}


@pytest.mark.rule("R30")
@pytest.mark.parametrize("n", SIZES)
def test_what_one_replica_may_have_committed_survives_the_view_change(n: int) -> None:
    """The last replica alone gets all COMMITs, executes, and is cut off together with nobody."""
    cores = cluster(n)
    last = n - 1

    def lose(_sender: int, receiver: int, packet: Packet) -> bool:
        is_commit = isinstance(packet, Envelope) and isinstance(decode_body(packet.body), Commit)
        return is_commit and receiver != last

    ask(cores)
    cores.run(lose)
    assert cores.states == [0] * last + [1]
    [digest] = executed(cores, last)
    ask(cores, 2)
    live(cores, 6000, cut_off(0, last) if n > 6 else cut_off(0))
    histories = [executed(cores, i) for i in range(1, last)]
    assert [history[0] for history in histories] == [digest] * (last - 1)


@pytest.mark.rule("R5")
@pytest.mark.rule("R6")
@pytest.mark.parametrize("n", SIZES)
def test_with_fewer_than_q_replicas_nothing_is_decided_and_with_q_it_goes_on(n: int) -> None:
    cores = cluster(n)
    q = cores.contexts[0].quorum.q
    ask(cores)
    live(cores, 5000, cut_off(*range(q - 1, n)))
    assert cores.states == [0] * n
    live(cores, 20_000, cut_off(*range(q, n)))
    assert_agreed(cores, *range(q, n))


# -- faulty primaries


@pytest.mark.rule("R36")
@pytest.mark.parametrize("n", [4, 7, 10])
def test_f_faulty_primaries_in_a_row_are_passed_by(n: int) -> None:
    cores = cluster(n)
    f = cores.contexts[0].quorum.f
    ask(cores)
    live(cores, 12_000, cut_off(*range(f)))
    assert_agreed(cores, *range(f))
    assert {core.views.view for core in cores.cores[f:]} == {f}


@pytest.mark.rule("R36")
@pytest.mark.parametrize("n", [4, 7])
def test_new_primaries_that_suppress_their_new_view_are_passed_by(n: int) -> None:
    cores = cluster(n)
    f = cores.contexts[0].quorum.f
    ask(cores)
    mute = sends_no(NewView, *range(1, f + 1))
    live(cores, 15_000, lambda a, b, p: 0 in (a, b) or mute(a, b, p))
    assert_agreed(cores, *range(f + 1))
    assert {core.views.view for core in cores.cores[f + 1 :]} == {f + 1}


@pytest.mark.rule("R32")
def test_different_new_views_for_different_replicas_decide_nothing_twice() -> None:
    """Replica 1 is faulty: both of its NEW-VIEWs are valid, and only one knows of the batch."""
    cores = cluster(4)
    content = cores.content(cores.request())
    proof = cores.prepared_proof(content, 1)
    for i in (0, 2, 3):
        core = cores.cores[i]
        core.log.add_content(core.log.slot(1), content)
        for j in (1, 2, 3):
            cores.receive(i, view_change(cores, j, 1))
        cores.outputs[i].clear()
    liar = view_change(cores, 1, 1)
    informed = new_view(cores, liar, view_change(cores, 2, 1, [proof]), view_change(cores, 3, 1))
    ignorant = new_view(cores, view_change(cores, 0, 1), liar, view_change(cores, 3, 1))
    assert len(informed.pre_prepares) == 1
    assert not ignorant.pre_prepares
    cores.receive(2, informed)
    other = cores.content(cores.request(bundle=2))
    for i in (0, 3):
        cores.receive(i, ignorant)
        cores.step(i, cores.proposal(other, 1, view=1))
        cores.receive(i, Commit(1, 1, 1, other.digest))
    live(cores, 3000, cut_off(1))
    assert executed(cores, 0) == executed(cores, 2) == executed(cores, 3) == [other.digest]


@pytest.mark.rule("R30")
def test_prepared_under_one_of_two_new_views_is_what_the_next_view_proposes() -> None:
    cores = cluster(4)
    content, other = cores.content(cores.request()), cores.content(cores.request(bundle=2))
    proof = cores.prepared_proof(content, 1)
    liar, quiet_one = view_change(cores, 1, 1), view_change(cores, 3, 1)
    informed = new_view(cores, liar, view_change(cores, 2, 1, [proof]), quiet_one)
    ignorant = new_view(cores, view_change(cores, 0, 1), liar, quiet_one)
    core = cores.cores[2]
    core.log.add_content(core.log.slot(1), content)
    cores.receive(2, informed)
    cores.receive(2, Prepare(3, 1, 1, content.digest))
    cores.receive(2, Prepare(0, 1, 1, content.digest))
    for i in (0, 3):
        cores.receive(i, ignorant)
        cores.step(i, cores.proposal(other, 1, view=1))
    assert cores.cores[2].log.slot(1).prepared, "0 and 3 have contradicted themselves: f = 2 here"
    ask(cores, 3, 0, 2, 3)
    live(cores, 8000, cut_off(1))
    assert_agreed(cores, 1)


@pytest.mark.rule("R29")
@pytest.mark.rule("R35")
@pytest.mark.parametrize("n", [4, 7])
def test_a_storm_of_view_changes_by_f_replicas_moves_nobody(n: int) -> None:
    cores = cluster(n)
    f = cores.contexts[0].quorum.f
    liars = range(n - f, n)
    for k in range(1, 30):
        for liar in liars:
            for i in range(n - f):
                cores.receive(i, view_change(cores, liar, k * k))
        if k % 10 == 0:
            ask(cores, k // 10)
        live(cores, 100, cut_off(*liars))
    assert {core.views.view for core in cores.cores[: n - f]} == {0}
    assert_agreed(cores, *liars)
    assert cores.states[0] == 2


@pytest.mark.rule("R29")
def test_a_view_change_with_two_faces_neither_stops_the_view_change_nor_splits_it() -> None:
    cores = cluster(7)
    content = cores.content(cores.request())
    faces = [view_change(cores, 6, 1, [cores.prepared_proof(content, 1)]), view_change(cores, 6, 1)]
    cores.cores[2].log.add_content(cores.cores[2].log.slot(1), content)  # one has its bodies
    for i in range(1, 6):
        cores.receive(i, faces[i % 2])
    ask(cores, 2)
    live(cores, 4000, cut_off(0, 6))
    assert {core.views.view for core in cores.cores[1:6]} == {1}
    assert_agreed(cores, 0, 6)
    assert executed(cores, 1)[0] != content.digest, "the primary had seen the other face"


# -- partitions


@pytest.mark.rule("R37")
@pytest.mark.parametrize(
    ("n", "groups"),
    [
        (4, [{0, 1}, {2, 3}]),
        (4, [{0}, {1}, {2}, {3}]),
        (5, [{0, 1}, {2, 3, 4}]),
        (7, [{0, 1, 2}, {3, 4, 5, 6}]),
        (7, [{0, 6}, {1, 5}, {2, 4}, {3}]),
    ],
)
def test_a_partition_that_heals_converges(n: int, groups: list[set[int]]) -> None:
    cores = cluster(n)
    ask(cores, 1)
    cores.run(parted(*groups))
    for i in range(2, 6):
        ask(cores, i, *groups[i % len(groups)])
        live(cores, 1500, parted(*groups))
    assert cores.states == [0] * n, "no side has a quorum"
    live(cores, 15_000, nothing_lost)
    assert_agreed(cores)
    assert len({core.views.view for core in cores.cores}) == 1
    assert all(core.views.active for core in cores.cores)
    assert all(not core.pool for core in cores.cores)


@pytest.mark.rule("R37")
def test_a_replica_that_missed_the_new_view_gets_it_although_its_primary_is_gone() -> None:
    cores = cluster(7)
    ask(cores)
    live(cores, 1500, lambda a, b, p: 0 in (a, b) or (b == 6 and is_new_view(p)))
    assert [core.views.active for core in cores.cores[1:]] == [True] * 5 + [False]
    live(cores, 400, cut_off(0, 1))
    assert (cores.cores[6].views.view, cores.cores[6].views.active) == (1, True)


def is_new_view(packet: Packet) -> bool:
    return isinstance(packet, Envelope) and isinstance(decode_body(packet.body), NewView)


@pytest.mark.rule("R37")
def test_lost_view_changes_are_made_up_for() -> None:
    cores = cluster(4)
    ask(cores)
    lost = sends_no(ViewChange, 1, 2, 3)
    live(cores, 1500, lambda a, b, p: 0 in (a, b) or lost(a, b, p))
    assert [core.views.active for core in cores.cores[1:]] == [False] * 3
    live(cores, 3000, cut_off(0))
    assert_agreed(cores, 0)


# -- R40: a restart in the middle


@pytest.mark.rule("R40")
@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("when", range(0, 2400, 300))
def test_everybody_restarting_in_the_middle_of_a_view_change_loses_nothing(
    n: int, when: int
) -> None:
    cores = cluster(n)

    def lose(_sender: int, _receiver: int, packet: Packet) -> bool:
        return isinstance(packet, Envelope) and isinstance(decode_body(packet.body), Commit)

    ask(cores)
    cores.run(lose)
    digest = cores.cores[1].log.slot(1).digest
    live(cores, when, cut_off(0))
    for i in range(1, n):
        cores.restart(i)
    live(cores, 6000, cut_off(0))
    assert_agreed(cores, 0)
    assert executed(cores, 1)[0] == digest
