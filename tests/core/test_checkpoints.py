"""Checkpoints: stable with q, discarded only then; a replica whose state is wrong (R21, R22)."""

import msgspec
import pytest
from cores import SMALL, Cores, reasons, sent, summary_of, votes_in
from view_changes import leave

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.output import BeginTransfer, Note, Output
from pbft.messages import (
    Checkpoint,
    CheckpointProof,
    Commit,
    FetchState,
    Prepare,
    Read,
    StateNodes,
    StateSummary,
    Status,
    TreeNode,
    ViewChange,
)

BACKUP = 2
K = SMALL.checkpoint_interval
RIGHT = checkpoint_digest(summary_of(K))
WRONG = StateSummary(K, K, b"w" * 32, bytes(32))


@pytest.fixture
def cores() -> Cores:
    return Cores()


def execute(cores: Cores, i: int, seq: int, summary: StateSummary | None = None) -> Output:
    """Let core `i` execute a batch that others have committed."""
    content = cores.content(cores.request(bundle=seq))
    votes = cores.commit_votes(content, seq)
    cores.step(i, events.CommittedBatchReceived(votes, content, 3))
    cores.states[i] = seq
    if summary is None and seq % K == 0:
        summary = summary_of(seq)
    return cores.step(i, events.Executed(seq, summary, (), None))


def batches(cores: Cores, i: int) -> list[int]:
    keys = [key for table, key in sorted(cores.disks[i]) if table == "batches"]
    return [int.from_bytes(key[:8], "big") for key in keys]


def stable(cores: Cores, i: int) -> int:
    return cores.cores[i].checkpoints.stable_seq


# -- R21


@pytest.mark.rule("R21")
def test_the_state_is_digested_right_after_each_interval(cores: Cores) -> None:
    content = cores.content(cores.request())
    due = []
    for seq in range(1, 2 * K + 1):
        votes = cores.commit_votes(content, seq)
        output = cores.step(BACKUP, events.CommittedBatchReceived(votes, content, 3))
        due += [execute.seq for execute in output.execute if execute.checkpoint]
    assert due == [K, 2 * K]


@pytest.mark.rule("R21")
def test_a_checkpoint_is_voted_for_right_after_its_number(cores: Cores) -> None:
    outputs = [execute(cores, BACKUP, seq) for seq in range(1, K + 1)]
    assert [votes_in(output, Checkpoint) for output in outputs] == [
        *[[]] * (K - 1),
        [Checkpoint(BACKUP, K, RIGHT)],
    ]


@pytest.mark.rule("R21")
def test_its_digest_covers_both_roots_the_time_and_the_number() -> None:
    base = StateSummary(4, 5, b"a" * 32, b"s" * 32)
    others = [
        msgspec.structs.replace(base, seq=8),
        msgspec.structs.replace(base, time=6),
        msgspec.structs.replace(base, application_root=b"b" * 32),
        msgspec.structs.replace(base, sessions_root=b"t" * 32),
        msgspec.structs.replace(base, application_root=b"s" * 32, sessions_root=b"a" * 32),
    ]
    assert len({checkpoint_digest(summary) for summary in [base, *others]}) == 6


@pytest.mark.rule("R21")
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_checkpoint_is_stable_with_q_matching_votes(n: int) -> None:
    cores = Cores(n)
    q = cores.contexts[0].quorum.q
    voters = [i for i in range(n) if i != BACKUP]
    for voter in voters[: q - 1]:
        cores.receive(BACKUP, Checkpoint(voter, K, RIGHT))
        cores.receive(BACKUP, Checkpoint(voter, K, RIGHT))  # again: it counts once (R6)
    assert stable(cores, BACKUP) == 0
    cores.receive(BACKUP, Checkpoint(voters[q - 1] if q <= len(voters) else BACKUP, K, RIGHT))
    assert stable(cores, BACKUP) == K
    assert cores.cores[BACKUP].log.low == K


@pytest.mark.rule("R21")
def test_votes_for_other_digests_and_numbers_do_not_add_up(cores: Cores) -> None:
    cores.receive(BACKUP, Checkpoint(0, K, RIGHT))
    cores.receive(BACKUP, Checkpoint(1, 2 * K, RIGHT))
    cores.receive(BACKUP, Checkpoint(2, K, b"o" * 32))
    cores.receive(BACKUP, Checkpoint(3, K, RIGHT))
    assert stable(cores, BACKUP) == 0
    assert reasons(cores.receive(BACKUP, Checkpoint(3, K + 1, RIGHT))) == [
        "checkpoint-off-the-grid"
    ]


@pytest.mark.rule("R21")
def test_nothing_is_discarded_before_a_checkpoint_is_stable(cores: Cores) -> None:
    for seq in range(1, 2 * K + 1):
        execute(cores, BACKUP, seq)
    for voter in (0, 1):
        cores.receive(BACKUP, Checkpoint(voter, 2 * K, checkpoint_digest(summary_of(2 * K))))
    assert batches(cores, BACKUP) == list(range(1, 2 * K + 1))
    cores.receive(BACKUP, Checkpoint(3, 2 * K, checkpoint_digest(summary_of(2 * K))))
    assert stable(cores, BACKUP) == 2 * K
    assert batches(cores, BACKUP) == list(range(K + 1, 2 * K + 1)), "one interval for late peers"


@pytest.mark.rule("R21")
def test_what_is_not_executed_yet_is_not_discarded(cores: Cores) -> None:
    for seq in range(1, 3):
        execute(cores, BACKUP, seq)
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, 2 * K, checkpoint_digest(summary_of(2 * K))))
    assert stable(cores, BACKUP) == 2 * K
    assert batches(cores, BACKUP) == [1, 2], "its state is flushed only up to 0"


@pytest.mark.rule("R21")
def test_the_proof_is_kept_over_a_restart_and_shown_to_those_behind(cores: Cores) -> None:
    for seq in range(1, K + 1):
        execute(cores, BACKUP, seq)
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, K, RIGHT))
    assert cores.cores[BACKUP].checkpoints.own_digest == RIGHT
    core = cores.restart(BACKUP)
    assert (core.checkpoints.stable_seq, core.log.low) == (K, K)
    proof = core.checkpoints.stable_proof
    assert proof == tuple(cores.envelope(i, Checkpoint(i, K, RIGHT)) for i in (0, 1, 3))
    behind = Status(3, 0, True, 0, 0, ())
    cores.receive(BACKUP, behind)
    assert CheckpointProof(proof) in [s.packet for s in cores.receive(BACKUP, behind).sends]
    [change] = votes_in(leave(cores, BACKUP, 1, (0, 3)), ViewChange)
    assert (change.stable_seq, change.stable_proof) == (K, proof)


@pytest.mark.rule("R21")
@pytest.mark.parametrize("voters", [(0, 1), (0, 1, 3)])
def test_a_checkpoint_far_ahead_is_believed_with_q_votes_only(
    cores: Cores, voters: tuple[int, ...]
) -> None:
    far = 2**40
    for voter in voters:
        cores.receive(BACKUP, Checkpoint(voter, far, b"f" * 32))
    assert stable(cores, BACKUP) == (far if len(voters) == 3 else 0)


@pytest.mark.rule("R21")
@pytest.mark.rule("R25")
def test_checkpoints_far_ahead_take_room_for_one_per_replica(cores: Cores) -> None:
    for k in range(1, 1000):
        cores.receive(BACKUP, Checkpoint(3, k * K, bytes([k % 251]) * 32))
    checkpoints = cores.cores[BACKUP].checkpoints
    assert len(checkpoints._votes) <= (SMALL.window + K) // K
    assert len(checkpoints._far) == 1


# -- R22


def diverged(cores: Cores) -> Output:
    """The backup's own state after K is wrong, and it learns so."""
    for seq in range(1, K):
        execute(cores, BACKUP, seq)
    output = execute(cores, BACKUP, K, WRONG)
    assert votes_in(output, Checkpoint) == [Checkpoint(BACKUP, K, checkpoint_digest(WRONG))]
    for message in output.own:
        cores.step(BACKUP, events.OwnDurable(message))
    return [cores.receive(BACKUP, Checkpoint(i, K, RIGHT)) for i in (0, 1, 3)][-1]


def nodes(i: int, seq: int = K) -> StateNodes:
    """An answer of replica `i` to the first question of a transfer."""
    return StateNodes(i, summary_of(seq), (TreeNode(b"\x00", (), ()),))


def repair(cores: Cores, seq: int = K) -> list[Output]:
    outputs = [cores.receive(BACKUP, nodes(source, seq)) for source in (0, 1, 3)]
    outputs.append(cores.step(BACKUP, events.StateInstalled(summary_of(seq), (), None)))
    cores.states[BACKUP] = seq
    return outputs


@pytest.mark.rule("R22")
def test_a_replica_whose_state_is_not_the_stable_one_says_so_and_asks_for_the_right_one(
    cores: Cores,
) -> None:
    output = diverged(cores)
    assert Note("state-diverged", (("seq", K),)) in output.notes
    asked = [(to, body.seq) for to, body in sent(output, FetchState)]  # type: ignore[attr-defined]
    assert asked
    assert all(to in (0, 1, 3) and seq == K for to, seq in asked)


@pytest.mark.rule("R22")
def test_it_votes_no_more_and_answers_no_read(cores: Cores) -> None:
    diverged(cores)
    content = cores.content(cores.request(bundle=K + 1))
    outputs = [cores.step(BACKUP, cores.proposal(content, K + 1))]
    outputs += [cores.receive(BACKUP, Prepare(i, 0, K + 1, content.digest)) for i in (1, 3)]
    outputs += [cores.receive(BACKUP, Commit(i, 0, K + 1, content.digest)) for i in (0, 1, 3)]
    outputs.append(leave(cores, BACKUP, 1, (0, 3)))
    assert not [message for output in outputs for message in output.own]
    assert not [execute for output in outputs for execute in output.execute]
    read = Read(cores.client_signers[0].public_key, 1, 0, (b"q",))
    [answer] = cores.step(BACKUP, events.Received(cores.sign(BACKUP, read), read.client)).answers
    assert answer.refused  # type: ignore[union-attr]


@pytest.mark.rule("R22")
def test_a_replica_that_computes_a_wrong_state_after_the_others_notices_too(cores: Cores) -> None:
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, K, RIGHT))
    for seq in range(1, K):
        execute(cores, BACKUP, seq)
    output = execute(cores, BACKUP, K, WRONG)
    assert not output.own
    assert "state-diverged" in [note.event for note in output.notes]
    assert cores.cores[BACKUP].gate.silent


@pytest.mark.rule("R22")
def test_it_gives_its_state_up_for_the_certified_one(cores: Cores) -> None:
    diverged(cores)
    outputs = repair(cores)
    assert BeginTransfer(summary_of(K)) in [t for output in outputs for t in output.transfer]


@pytest.mark.rule("R22")
def test_with_the_right_state_it_votes_and_executes_again(cores: Cores) -> None:
    diverged(cores)
    content = cores.content(cores.request(bundle=K + 1))
    cores.step(BACKUP, cores.proposal(content, K + 1))
    outputs = repair(cores)
    assert votes_in(outputs[-1], Prepare) == [Prepare(BACKUP, 0, K + 1, content.digest)]
    votes = cores.commit_votes(content, K + 1)
    output = cores.step(BACKUP, events.CommittedBatchReceived(votes, content, 3))
    assert [execute.seq for execute in output.execute] == [K + 1]


@pytest.mark.rule("R22")
@pytest.mark.rule("R46")
def test_a_repaired_replica_signs_no_second_checkpoint(cores: Cores) -> None:
    wrong = {K: WRONG, 2 * K: msgspec.structs.replace(WRONG, seq=2 * K)}
    outputs = [execute(cores, BACKUP, seq, wrong.get(seq)) for seq in range(1, 2 * K + 1)]
    for voter in (0, 1, 3):
        cores.receive(BACKUP, Checkpoint(voter, K, RIGHT))
    outputs += repair(cores)
    outputs += [execute(cores, BACKUP, seq) for seq in range(K + 1, 2 * K + 1)]
    signed = [vote for output in outputs for vote in votes_in(output, Checkpoint)]
    assert signed == [Checkpoint(BACKUP, seq, checkpoint_digest(wrong[seq])) for seq in (K, 2 * K)]


@pytest.mark.rule("R22")
def test_a_repaired_replica_sends_the_view_change_that_it_owes(cores: Cores) -> None:
    diverged(cores)
    leave(cores, BACKUP, 1, (0, 3))
    outputs = repair(cores)
    assert [v.view for output in outputs for v in votes_in(output, ViewChange)] == [1]


@pytest.mark.rule("R22")
def test_a_wrong_state_is_noticed_after_a_restart_too(cores: Cores) -> None:
    for seq in range(1, K):
        execute(cores, BACKUP, seq)
    execute(cores, BACKUP, K, WRONG)
    cores.restart(BACKUP, summary=WRONG)
    output = [cores.receive(BACKUP, Checkpoint(i, K, RIGHT)) for i in (0, 1, 3)][-1]
    assert "state-diverged" in [note.event for note in output.notes]


@pytest.mark.rule("R22")
def test_replicas_halt_when_no_digest_can_reach_a_quorum(cores: Cores) -> None:
    outputs = [
        cores.receive(BACKUP, Checkpoint(voter, K, digest))
        for voter, digest in ((0, b"a" * 32), (1, b"b" * 32), (3, b"a" * 32), (2, b"b" * 32))
    ]
    assert [bool(output.halt) for output in outputs] == [False, False, False, True]
    assert f"after {K}" in (outputs[-1].halt or "")
    assert outputs[-1].show_state == K


@pytest.mark.rule("R22")
@pytest.mark.parametrize("n", [4, 7])
def test_f_liars_never_halt_the_others(n: int) -> None:
    cores = Cores(n)
    f = cores.contexts[0].quorum.f
    liars = range(n - f, n)
    outputs = [cores.receive(BACKUP, Checkpoint(i, K, bytes([i]) * 32)) for i in liars]
    honest = [i for i in range(n - f) if i != BACKUP]
    outputs += [cores.receive(BACKUP, Checkpoint(i, K, RIGHT)) for i in (*honest, BACKUP)]
    assert not any(output.halt for output in outputs)
    assert stable(cores, BACKUP) == K


@pytest.mark.rule("R22")
def test_votes_that_are_still_out_keep_hope_alive(cores: Cores) -> None:
    outputs = [cores.receive(BACKUP, Checkpoint(i, K, bytes([i]) * 32)) for i in (0, 1)]
    assert not any(output.halt for output in outputs), "2 and 3 may yet agree with either"
