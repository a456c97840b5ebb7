"""A CHECKPOINT that could not be sent when its state was reached is sent later (R21, R40)."""

import pytest
from cores import START, Cores, seen, summary_of, votes_in

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.output import Output
from pbft.core.parts import Foundation
from pbft.core.records import Restored
from pbft.core.replica import Replica
from pbft.messages import Checkpoint

ME = 1
VOTE = Checkpoint(ME, 4, checkpoint_digest(summary_of(4)))


def killed_after_the_flush(cores: Cores) -> Output:
    """Core 1 has flushed the state after 4, and was killed before its vote was durable."""
    found = Foundation(Restored(), executed=4, summary=summary_of(4))
    cores.cores[ME] = Replica(cores.contexts[ME], found, START)
    return cores.step(ME, events.Started(7))


def remembered(cores: Cores) -> Output:
    """The others know of no later start of core 1."""
    for known in (0, 1):
        for peer in (0, 2):
            output = cores.receive(ME, seen(peer, ME, 7, known))
    return output


@pytest.mark.rule("R21")
@pytest.mark.rule("R40")
def test_a_flushed_checkpoint_without_a_vote_is_voted_for_after_a_restart() -> None:
    cores = Cores()
    assert votes_in(killed_after_the_flush(cores), Checkpoint) == []
    assert votes_in(remembered(cores), Checkpoint) == [VOTE]


@pytest.mark.rule("R21")
def test_a_checkpoint_passed_in_silence_is_voted_for_once_that_is_over() -> None:
    cores = Cores()
    cores.cores[ME] = Replica(cores.contexts[ME], Foundation(Restored(), executed=3), START)
    cores.step(ME, events.Started(7))
    cores.cores[ME].queue.jump(4)
    cores.step(ME, events.Executed(4, summary_of(4), (), None))
    assert votes_in(remembered(cores), Checkpoint) == [VOTE]


@pytest.mark.rule("R22")
def test_a_flushed_state_that_is_not_the_stable_one_is_repaired() -> None:
    cores = Cores()
    restored = Restored(stable=cores.checkpoint_proof(4, b"other" + bytes(27)))
    found = Foundation(restored, executed=4, summary=summary_of(4))
    cores.cores[ME] = Replica(cores.contexts[ME], found, START)
    cores.step(ME, events.Started(7))
    assert cores.cores[ME].transfer.target is not None
    assert cores.cores[ME].queue.paused
