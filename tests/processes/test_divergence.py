"""Replicas whose application is not deterministic: they stop, and show where they differ (R22)."""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from client.errors import ClientError
from tests.processes.running import written
from tests.processes.test_cluster_command import cluster_command

APPLICATION = '''
import os
from pbft import StateMachine


class Process(StateMachine):
    """Notes every operation, and under one key a number that is another on each replica."""

    def apply(self, state, operation, context):
        state.put(operation, b"")
        if operation == b"operation 7":
            state.put(b"process", b"%d" % os.getpid())
        return b""

    def query(self, state, operation):
        return b""
'''


@pytest.mark.rule("R22")
def test_replicas_that_disagree_about_the_state_stop_and_show_in_which_bucket(
    tmp_path: Path,
) -> None:
    (tmp_path / "process.py").write_text(APPLICATION)
    with cluster_command(tmp_path, "--app", "process:Process") as command:
        cluster = command.cluster
        interval = cluster.config.parameters.checkpoint_interval

        async def scenario() -> None:
            async with cluster.client(deadline=5.0) as client:
                with suppress(ClientError):  # the last ones find nobody any more
                    for number in range(interval + 2):
                        await client.submit(b"operation %d" % number)
            await written(command.log, "can reach a quorum any more", times=4)

        asyncio.run(scenario())
        listings = [
            cluster.data / f"replica-{replica}" / f"divergence-{interval}.txt"
            for replica in cluster.replicas
        ]
        assert command.log.read_text().count(f"file={Path('data') / 'replica-0'}") == 2
        for other in listings[1:]:
            diff = subprocess.run(["diff", listings[0], other], capture_output=True, check=False)
            lines = [line for line in diff.stdout.decode().splitlines() if line[0] in "<>"]
            assert len(lines) == 2
            assert all(" b'process' " in line and "application/" in line for line in lines)
