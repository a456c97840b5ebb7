"""The checks after every step are alive: each sees the damage that it is there for."""

from collections.abc import Callable

import pytest
from cores import Cores
from view_changes import prepared_at

from pbft.core.invariants import InvariantBroken, Invariants
from pbft.core.replica import Replica
from pbft.messages import Commit, Prepare

BACKUP = 2
D = b"d" * 32


@pytest.fixture
def cores() -> Cores:
    """The backup has prepared 1, and 2 is committed there."""
    cores = Cores()
    prepared_at(cores, BACKUP, 1)
    digest = prepared_at(cores, BACKUP, 2)
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Commit(voter, 0, 2, digest))
    return cores


def view_back(core: Replica, _cores: Cores) -> None:
    core.views.view = core.ordering.view = -1


def watermark_back(core: Replica, _cores: Cores) -> None:
    core.log.low = core.checkpoints.stable_seq = -1


def executed_too_far(core: Replica, _cores: Cores) -> None:
    core.queue.executed = core.queue.handed + 1


def watermark_without_a_checkpoint(core: Replica, _cores: Cores) -> None:
    core.log.low = 4


def two_views(core: Replica, _cores: Cores) -> None:
    core.ordering.view = 1


def ordering_between_views(core: Replica, _cores: Cores) -> None:
    core.views.active = False


def prepared_without_a_certificate(core: Replica, _cores: Cores) -> None:
    core.log.slot(1).proof = None


def prepared_without_a_pre_prepare(core: Replica, _cores: Cores) -> None:
    core.log.slot(1).pre_prepare = None


def a_vote_of_a_later_view(core: Replica, cores: Cores) -> None:
    core.log.slot(1).own_prepare = cores.sign(BACKUP, Prepare(BACKUP, 1, 1, D))


def a_second_vote(core: Replica, cores: Cores) -> None:
    core.log.slot(1).own_prepare = cores.sign(BACKUP, Prepare(BACKUP, 0, 1, D))


def another_batch_committed(core: Replica, cores: Cores) -> None:
    core.log.slot(2).certificate = (cores.envelope(0, Commit(0, 0, 2, D)),)


@pytest.mark.rule("R2")
@pytest.mark.parametrize(
    "damage",
    [
        view_back,
        watermark_back,
        executed_too_far,
        watermark_without_a_checkpoint,
        two_views,
        ordering_between_views,
        prepared_without_a_certificate,
        prepared_without_a_pre_prepare,
        a_vote_of_a_later_view,
        a_second_vote,
        another_batch_committed,
    ],
)
def test_damage_is_seen(cores: Cores, damage: Callable[[Replica, Cores], None]) -> None:
    core = cores.cores[BACKUP]
    invariants = Invariants()
    invariants.check(core)
    damage(core, cores)
    with pytest.raises(InvariantBroken):
        invariants.check(core)


@pytest.mark.rule("R2")
def test_a_promise_is_remembered_over_a_restart_and_a_position_is_not(cores: Cores) -> None:
    invariants = Invariants()
    invariants.check(cores.cores[BACKUP])
    invariants.restarted()
    fresh = Cores().cores[BACKUP]
    invariants.check(fresh)
    a_second_vote(fresh, cores)
    with pytest.raises(InvariantBroken):
        invariants.check(fresh)
