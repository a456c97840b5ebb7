"""The shell stops a node that has failed, whatever the failure is (R47)."""

import asyncio
from collections import Counter

import pytest
from cores import Cores

from pbft.node.shell import Shell
from pbft.node.transport import TcpTransport
from pbft.node.turn import Halted


class Failing:
    """A node of which half a turn is done when it fails."""

    waiting = True
    wake_at = None

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.turns = 0

    def turn(self) -> None:
        self.turns += 1
        raise self.error


@pytest.mark.rule("R47")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RecursionError("too deep"), "RecursionError in test_shell.py:"),
        (AssertionError("a promise"), "AssertionError in test_shell.py:"),
        (Halted("it says why"), "it says why"),
    ],
)
def test_a_node_that_fails_in_a_turn_takes_no_other(error: Exception, reason: str) -> None:
    failures: list[str] = []
    node = Failing(error)

    async def scenario() -> None:
        cores, counters = Cores(), Counter[str]()
        context, signer = cores.contexts[0], cores.signers[0]
        shell = Shell(context, signer, TcpTransport(counters), counters, failures.append)
        shell._node = node  # type: ignore[assignment]
        for _ in range(3):
            shell._run()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert node.turns == 1
    assert len(failures) == 1
    assert failures[0].startswith(reason)
