"""The process that is recorded: one replica of a simulated cluster, on the real disk.

    python -m tests.power_loss.driver replica KEYS DATA [--careless]
    python -m tests.power_loss.driver again KEYS DATA

`replica` is a life as replicas have it: a first start, ordering with checkpoints and garbage
collection, large and small values, a view change, a stop and a start, a time cut off from the
others and the transfer of a state after it, and ordering again. `again` opens what is there and
commits once to both databases. With --careless nothing is synced.
"""

import sys
from pathlib import Path
from random import Random

from msgspec.structs import replace

from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.config_keys import CLUSTER_FILE, load_client_signer, load_replica_signer
from pbft.core.records import TABLES
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.machine import Machine
from pbft.simulation.scenario import CALM, Scenario
from pbft.storage.data_directory import DataDirectory, open_data_directory
from pbft.storage.state_trees import STATE_TABLES
from tests.power_loss.disk_check import REPLICA, commit_once
from tests.power_loss.marks import AnnouncedDatabase

SECOND = 1_000_000
PARAMETERS = replace(CALM, checkpoint_interval=4, window=8)
CLIENTS, KEYS = 3, 60
SIZES = (10, 10, 10, 10, 300, 300, 3_000, 40_000)
"""Of values: inside a page, and on pages of their own (LMDB's overflow pages)."""


class RecordedCluster(SimulatedCluster):
    """Its members have real keys, so that the shipped program can go on with their data."""

    def __init__(self, keys: Path, scenario: Scenario) -> None:
        self._keys = keys
        super().__init__(scenario)
        sizes = Random(1)
        for client in self.clients:
            workload = client._workload
            small = workload._value
            workload._value = lambda small=small: small().ljust(sizes.choice(SIZES), b".")

    def _configure(self) -> ClusterConfig:
        config = load_cluster(self._keys / CLUSTER_FILE)
        members, clients = range(self.scenario.replicas), config.clients
        self._replica_signers = [load_replica_signer(config, self._keys, i) for i in members]
        self._client_signers = [load_client_signer(config, self._keys, c.name) for c in clients]
        return config


class RealDisk:
    """The data directory of the recorded replica, opened and announced."""

    def __init__(self, config: ClusterConfig, path: Path, *, durable: bool = True) -> None:
        self._config, self._path, self._durable = config, path, durable
        self.opened: DataDirectory | None = None

    def put_under(self, machine: Machine) -> None:
        """Open, and let the machine use it when it starts."""
        self.opened = open_data_directory(
            self._path, self._config.cluster_id, REPLICA, durable=self._durable
        )
        machine.log_disk = AnnouncedDatabase(self.opened.log, "log", TABLES)
        machine.state_disk = AnnouncedDatabase(self.opened.state, "state", STATE_TABLES)

    def close(self) -> None:
        """Close it, as a node does when it was asked to stop."""
        assert self.opened is not None
        self.opened.close()


def live(keys: Path, data: Path, *, durable: bool) -> None:
    """A whole life, on virtual time."""
    scenario = Scenario(
        seed=7, clients=CLIENTS, operations=70, keys=KEYS, ed25519=True, parameters=PARAMETERS
    )
    cluster = RecordedCluster(keys, scenario)
    machine, world, network = cluster.machines[REPLICA], cluster.world, cluster.network
    disk = RealDisk(cluster.config, data, durable=durable)
    disk.put_under(machine)
    cluster.start()
    world.run_until(2 * SECOND)
    cluster.machines[0].crash()  # the primary: a view change
    world.run_until(4 * SECOND)
    cluster.machines[0].start()
    stop(machine, disk)
    world.run_until(world.now + SECOND)
    disk.put_under(machine)
    machine.start()
    world.run_until(world.now + SECOND)
    network.partition([machine.endpoint], [e for e in network._receivers if e != machine.endpoint])
    world.run_until(world.now + 2 * SECOND)
    network.heal()
    for client in cluster.clients:
        client.finish()
    world.run_until(world.now + scenario.patience, lambda: cluster.settled)
    assert cluster.settled
    assert cluster.witness.counts["state-transfer-finished"]
    assert cluster.highest_view > 0
    stop(machine, disk)


def stop(machine: Machine, disk: RealDisk) -> None:
    """What `pbft node` does on SIGTERM."""
    assert machine.node is not None
    machine.node.close()
    machine.crash()
    disk.close()


def again(keys: Path, data: Path) -> None:
    """Open, commit once to each database, close."""
    config = load_cluster(keys / CLUSTER_FILE)
    opened = open_data_directory(data, config.cluster_id, REPLICA)
    log = AnnouncedDatabase(opened.log, "log", TABLES)
    state = AnnouncedDatabase(opened.state, "state", STATE_TABLES)
    commit_once(log, state)
    opened.close()


def main(what: str, keys: str, data: str, *options: str) -> None:
    """See above."""
    if what == "again":
        again(Path(keys), Path(data))
    else:
        live(Path(keys), Path(data), durable="--careless" not in options)


if __name__ == "__main__":
    main(*sys.argv[1:])
