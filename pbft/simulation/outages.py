"""Machines that fall, are missed by the others, and come back after a while."""

from pbft.core import events
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.disk import Disk
from pbft.simulation.machine import Machine

MILLISECOND = 1_000


class Outages:
    """How long each lasts is the seed's choice: at most one of `longest` (µs)."""

    def __init__(self, cluster: SimulatedCluster, longest: tuple[int, ...]) -> None:
        self._world = cluster.world
        self._network = cluster.network
        self._machines = cluster.machines
        self._clients = cluster.clients
        self._longest = longest
        self.images: dict[Machine, tuple[Disk, Disk]] = {}  # the disks of each when it first fell

    def fell(self, machine: Machine) -> None:
        """Crash it, unless it is down already."""
        if machine.alive:
            machine.crash()
            self.mourn(machine)

    def mourn(self, machine: Machine) -> None:
        """It has crashed: its connections break, and it is started again."""
        if machine not in self.images and not machine.forgetful:
            self.images[machine] = machine.image()
        for other in self._machines:
            other.post(events.PeerDisconnected(machine.replica))
        outage = self._world.random.randint(MILLISECOND, self._world.random.choice(self._longest))
        self._world.after(outage, lambda: self.revive(machine))

    def revive(self, machine: Machine) -> None:
        """Start it, unless it runs or has stopped itself."""
        if machine.alive or machine.halted:
            return
        machine.start()
        for other in self._machines:
            if other is not machine:
                other.post(events.PeerConnected(machine.replica))
        for client in self._clients:
            client.connected(machine.replica)

    def reconnect(self) -> None:
        """Everybody hears everybody again, and clients know it."""
        self._network.reconnect()
        for client in self._clients:
            for replica in dict.fromkeys(machine.replica for machine in self._machines):
                client.connected(replica)
