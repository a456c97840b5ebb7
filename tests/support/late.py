"""A replica that is behind, fed by hand: how it comes to fetch a state, and what it is sent."""

from cores import SMALL, Cores, sent, summary_of

from pbft.codec import checkpoint_digest
from pbft.core import events
from pbft.core.output import (
    Output,
)
from pbft.core.state_transfer import ANSWER_TIMEOUT_US
from pbft.messages import (
    Checkpoint,
    FetchState,
    StateNodes,
    TreeNode,
)

LATE = 3
K = SMALL.checkpoint_interval
SOURCES = (0, 1, 2)
TIMEOUT_MS = ANSWER_TIMEOUT_US // 1000


def certify(cores: Cores, seq: int, voters: tuple[int, ...] = SOURCES) -> None:
    for voter in voters:
        cores.receive(LATE, Checkpoint(voter, seq, checkpoint_digest(summary_of(seq))))


def stuck(cores: Cores) -> Output:
    """The late one executes nothing for as long as it takes to want a whole state."""
    cores.step(LATE, events.Started(1))
    for _ in range(4):
        output = cores.tick(LATE, SMALL.heartbeat_interval_ms)
    return output


def begun(cores: Cores, seq: int = 2 * K, voters: tuple[int, ...] = SOURCES) -> Output:
    certify(cores, seq, voters)
    return stuck(cores)


def asked(output: Output) -> list[tuple[int | None, FetchState]]:
    return sent(output, FetchState)  # type: ignore[return-value]


def node(path: bytes) -> TreeNode:
    return TreeNode(path, (), ())


def answer(source: int, *paths: bytes, seq: int = 2 * K) -> StateNodes:
    return StateNodes(source, summary_of(seq), tuple(node(path) for path in paths))


def commit(cores: Cores, seq: int) -> Output:
    content = cores.content(cores.request(bundle=seq))
    votes = cores.commit_votes(content, seq)
    return cores.step(LATE, events.CommittedBatchReceived(votes, content, 0))


def installed(
    cores: Cores, source: int, paths: tuple[bytes, ...], wanted: tuple[bytes, ...] = ()
) -> Output:
    cores.receive(LATE, answer(source, *paths))
    return cores.step(LATE, events.NodesInstalled(source, paths, wanted))
