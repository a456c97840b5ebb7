"""What befalls a simulated cluster: crashes, partitions and bad weather, drawn from the seed."""

from collections.abc import Callable
from typing import ClassVar

from msgspec import Struct

from pbft.core.quorum import Quorum
from pbft.simulation.client import SimulatedClient
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.machine import Machine
from pbft.simulation.network import Endpoint, Weather
from pbft.simulation.outages import MILLISECOND, Outages

OUTAGES = (50 * MILLISECOND, 500 * MILLISECOND, 3_000 * MILLISECOND)
MOST_STEPS = 40
"""A power cut comes at most so many commits, packets or executions later: within a few turns."""


class Kind(Struct, frozen=True):
    """What may happen, and how long it takes until the next thing does (milliseconds)."""

    pause: tuple[int, int]
    actions: tuple[Callable[["Trouble"], None], ...]


class Trouble:
    """Injects faults until the scenario's end of trouble; then everything is repaired."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._world = cluster.world
        self._network = cluster.network
        self._machines = cluster.machines
        self._clients = cluster.clients
        self._counts = cluster.witness.counts
        self._until = cluster.scenario.trouble
        self._most_faulty = Quorum(cluster.scenario.replicas).f
        self._outages = Outages(cluster, OUTAGES)
        for machine in self._machines:
            machine.on_power_cut = self._power_failed
        self._kind = self._kinds[cluster.scenario.kind]
        self._world.at(self._until, self._repair)
        self._next()

    def _next(self) -> None:
        pause = self._world.random.randint(*self._kind.pause) * MILLISECOND
        self._world.after(pause, self._strike)

    def _strike(self) -> None:
        if self._world.now < self._until:
            self._world.random.choice(self._kind.actions)(self)
            self._next()

    def _repair(self) -> None:
        self._heal()
        for machine in self._machines:
            machine.cut_power_after(None)
            self._outages.revive(machine)

    # -- crashes

    def _crash(self) -> None:
        self._outages.fell(self._world.random.choice(self._machines))

    def _crash_all(self) -> None:
        if self._world.random.random() < 0.3:
            for machine in self._machines:
                self._outages.fell(machine)

    def _cut_power(self) -> None:
        """Soon, in the middle of a turn: of the primary, of any one, or of all within moments."""
        random = self._world.random
        leading = [m for m in self._machines if m.node and m.node.core.ordering.leading]
        groups = (self._machines, leading, leading, *([machine] for machine in self._machines))
        for machine in random.choice(groups):
            machine.cut_power_after(random.randint(1, MOST_STEPS))

    def _power_failed(self, machine: Machine) -> None:
        self._counts["power-cut"] += 1
        self._outages.mourn(machine)

    def _forget(self) -> None:
        """A machine comes back with an empty disk, or with the one of an earlier day (R41).

        As long as that matters it is one of the at most f faulty ones.
        """
        random = self._world.random
        if sum(not m.correct or m.forgetful for m in self._machines) >= self._most_faulty:
            return
        machine = random.choice([m for m in self._machines if m.correct])
        machine.cut_power_after(None)
        self._outages.fell(machine)
        image = self._outages.images.get(machine) if random.random() < 0.4 else None
        machine.replace_disks(image and (image[0].copy(), image[1].copy()))
        self._counts["disk-replaced"] += 1

    # -- the network

    def _endpoints(self) -> list[Endpoint]:
        endpoints = [machine.endpoint for machine in self._machines]
        self._world.random.shuffle(endpoints)
        return endpoints

    def _partition(self) -> None:
        endpoints = self._endpoints()
        cut = self._world.random.randint(1, len(endpoints) - 1)
        self._network.partition(endpoints[:cut], endpoints[cut:])

    def _moving_partition(self) -> None:
        """Another cut every few hundred milliseconds: quorums that overlap in ever other ones."""
        for turn in range(4):
            self._world.after(turn * 250 * MILLISECOND, self._cut_anew)

    def _cut_anew(self) -> None:
        if self._world.now < self._until:
            self._reconnect()
            self._split()

    def _split(self) -> None:
        """Two halves, each with one of a pair of twins, and with some of the clients."""
        random = self._world.random
        halves: tuple[list[Endpoint], list[Endpoint]] = ([], [])
        single = [machine.endpoint for machine in self._machines if not machine.twinned]
        for number, endpoint in enumerate(random.sample(single, len(single))):
            halves[number % 2].append(endpoint)
        for machine in self._machines:
            if machine.twinned:
                halves[machine.endpoint.startswith("t")].append(machine.endpoint)
        for client in self._clients:
            halves[random.randrange(2)].append(client.endpoint)
        self._network.partition(*halves)

    def _stairs(self) -> None:
        """Three steps, of which each hears itself and those below, but nobody above.

        The upper ones get what the lower ones vote, and may execute what these, with the primary
        among them, cannot.
        """
        random = self._world.random
        steps: tuple[list[Endpoint], ...] = ([], [], [])
        for machine in self._machines:
            leads = machine.node is not None and machine.node.core.ordering.leading
            number = 1 if leads else random.randrange(2)
            if machine.twinned:
                number = 2 * machine.endpoint.startswith("t")
            steps[number].append(machine.endpoint)
        self._network.reconnect()
        for upper, lower in ((0, 1), (0, 2), (1, 2)):
            self._network.deafen(steps[lower], steps[upper])

    def _one_way(self) -> None:
        sender, receiver = self._world.random.sample(self._machines, 2)
        self._network.block(sender.endpoint, receiver.endpoint)

    def _follow_primary(self) -> None:
        """Cut off whoever leads now."""
        for machine in self._machines:
            if machine.node is not None and machine.node.core.ordering.leading:
                others = [m.endpoint for m in self._machines if m is not machine]
                self._network.partition([machine.endpoint], others)

    def _reconnect(self) -> None:
        self._outages.reconnect()

    def _heal(self) -> None:
        self._reconnect()
        self._network.heal()

    def _weather(self) -> None:
        random = self._world.random
        self._network.weather = Weather(
            loss=random.choice((0.0, 0.05, 0.3)),
            duplication=random.choice((0.0, 0.1, 0.5)),
            least_delay=100,
            most_delay=random.choice((2, 20, 150)) * MILLISECOND,
            straggler=random.choice((0.0, 0.02, 0.1)),
        )

    # -- clients

    def _restart_client(self) -> None:
        """Another process takes over, and perhaps gets somebody else's token as well."""
        client = self._any_client()
        client.restart()
        if self._world.random.random() < 0.5:
            client.hand_over(self._any_client().seen)

    def _cut_client(self) -> None:
        """A client loses some of the replicas, until something connects everybody again."""
        client, lost = self._any_client(), self._endpoints()
        keep = self._world.random.randrange(len(lost))
        self._network.partition([client.endpoint], lost[keep:])

    def _any_client(self) -> SimulatedClient:
        return self._world.random.choice(self._clients)

    _kinds: ClassVar[dict[str, Kind]] = {
        "mixed": Kind(
            (50, 1_200),
            (
                _crash,
                _crash_all,
                _cut_power,
                _cut_power,
                _cut_power,
                _forget,
                _partition,
                _moving_partition,
                _split,
                _stairs,
                _one_way,
                _weather,
                _weather,
                _follow_primary,
                _restart_client,
                _cut_client,
                _reconnect,
                _heal,
            ),
        ),
        "amnesia": Kind((50, 900), (_forget, _forget, _cut_power, _crash_all, _weather, _heal)),
        "split": Kind((700, 2_500), (_split, _split, _split, _moving_partition, _weather)),
        "weather": Kind((100, 400), (_weather, _weather, _reconnect)),
        "outage": Kind((30, 300), (_cut_power,)),
        "storm": Kind((100, 700), (_weather, _weather, _follow_primary, _split, _reconnect)),
    }
