"""What is dropped before any signature is looked at, since it can be of no use (R25, R43)."""

import pytest
from cores import SMALL, Cores, summary_of
from view_changes import leave, new_view, prepared_at, quiet, view_change

from pbft.core.relevance import FUTURE_VIEWS, reason_to_drop
from pbft.messages import (
    Body,
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    StateNodes,
    Suspect,
    ViewChange,
)

BACKUP = 2
D = b"d" * 32
ABOVE = SMALL.window + SMALL.checkpoint_interval
FAR = FUTURE_VIEWS + 2


@pytest.fixture
def cores() -> Cores:
    """The backup is in view 1, whose primary is 1."""
    cores = Cores()
    cores.receive(BACKUP, new_view(cores, *quiet(cores, 1, 0, 1, 3)))
    return cores


def judged(cores: Cores, body: Body) -> str | None:
    return reason_to_drop(cores.cores[BACKUP], body)


@pytest.mark.rule("R43")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PrePrepare(1, 1, 1, D), None),
        (PrePrepare(1, 1, ABOVE, D), None),
        (PrePrepare(1, 1, ABOVE + 1, D), "pre-prepare-out-of-window"),
        (PrePrepare(1, 1, 0, D), "pre-prepare-out-of-window"),
        (PrePrepare(0, 0, 1, D), "pre-prepare-of-another-view"),
        (PrePrepare(1, 5, 1, D), "pre-prepare-of-another-view"),
        (PrePrepare(3, 1, 1, D), "pre-prepare-of-another-view"),
        (Suspect(3, 2**63 - 1), None),
        (Checkpoint(3, 4, D), None),
        (Checkpoint(3, 0, D), "checkpoint-not-needed"),
        (StateNodes(3, summary_of(4), ()), "state-not-asked-for"),
        (ViewChange(3, 2, 0, D, (), ()), None),
        (ViewChange(3, 1, 0, D, (), ()), "view-change-not-needed"),
        (ViewChange(3, FAR, 0, D, (), ()), "view-far-ahead"),
        (NewView(2, 2, (), ()), None),
        (NewView(1, 1, (), ()), "new-view-not-needed"),
        (NewView(0, 0, (), ()), "new-view-not-needed"),
        (NewView(3, FAR, (), ()), "view-far-ahead"),
    ],
)
def test_what_is_worth_a_look(cores: Cores, body: Body, reason: str | None) -> None:
    assert judged(cores, body) == reason


@pytest.mark.rule("R43")
@pytest.mark.rule("R25")
@pytest.mark.parametrize("kind", [Prepare, Commit])
@pytest.mark.parametrize(
    ("view", "seq", "reason"),
    [
        (1, 1, None),
        (1, ABOVE, None),
        (1, ABOVE + 1, "vote-out-of-window"),
        (1, 0, "vote-out-of-window"),
        (0, 1, "vote-of-an-earlier-view"),
        (2, 1, None),
        (FAR, 1, "view-far-ahead"),
        (2**63 - 1, 1, "view-far-ahead"),
    ],
)
def test_which_votes_are_worth_a_look(
    cores: Cores,
    kind: type[Prepare] | type[Commit],
    view: int,
    seq: int,
    reason: str | None,
) -> None:
    assert judged(cores, kind(3, view, seq, D)) == reason


@pytest.mark.rule("R43")
def test_what_is_known_is_not_looked_at_again_but_a_contradiction_is(cores: Cores) -> None:
    content = cores.content(cores.request(bundle=7))
    cores.step(BACKUP, cores.proposal(content, 1, view=1))
    assert judged(cores, PrePrepare(1, 1, 1, content.digest)) == "duplicate"
    assert judged(cores, PrePrepare(1, 1, 1, D)) is None, "it would be evidence (R46)"
    for kind in (Prepare, Commit):
        cores.receive(BACKUP, kind(0, 1, 1, content.digest))
        assert judged(cores, kind(0, 1, 1, content.digest)) == "vote-not-needed"
        assert judged(cores, kind(0, 1, 1, D)) is None, "it would be evidence (R46)"
        assert judged(cores, kind(3, 1, 1, content.digest)) is None
        assert judged(cores, kind(0, 2, 1, content.digest)) is None, "it is of a later view"


@pytest.mark.rule("R43")
def test_votes_that_came_too_late_to_matter_are_not_looked_at(cores: Cores) -> None:
    digest = prepared_at(cores, BACKUP, 1, view=1)
    assert judged(cores, Prepare(3, 1, 1, digest)) == "vote-not-needed"
    assert judged(cores, Commit(3, 1, 1, digest)) is None
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Commit(voter, 1, 1, digest))
    assert judged(cores, Commit(BACKUP, 1, 1, digest)) == "vote-not-needed"


@pytest.mark.rule("R43")
def test_a_view_change_is_looked_at_if_it_says_something_new(cores: Cores) -> None:
    cores.receive(BACKUP, view_change(cores, 3, 5))
    assert judged(cores, view_change(cores, 3, 5)) == "view-change-not-needed"
    assert judged(cores, view_change(cores, 3, 4)) == "view-change-not-needed"
    assert judged(cores, view_change(cores, 3, 6)) is None
    other = ViewChange(3, 5, 0, D, (), ())
    assert judged(cores, other) is None, "it would be evidence (R46)"


@pytest.mark.rule("R43")
def test_between_views_a_new_view_for_the_one_that_is_sought_is_looked_at(cores: Cores) -> None:
    leave(cores, BACKUP, 2, (0, 3))
    assert judged(cores, NewView(2, 2, (), ())) is None
    assert judged(cores, NewView(1, 1, (), ())) == "new-view-not-needed"
    assert judged(cores, PrePrepare(2, 2, 1, D)) == "pre-prepare-of-another-view"
    assert judged(cores, view_change(cores, 1, 2)) is None
