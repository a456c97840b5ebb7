"""What befalls a simulated cluster: crashes, partitions and bad weather, drawn from the seed."""

from pbft.core import events
from pbft.simulation.machine import Machine
from pbft.simulation.network import Network, Weather
from pbft.simulation.world import World

MILLISECOND = 1_000
LONGEST_OUTAGE = 3_000 * MILLISECOND


class Trouble:
    """Injects faults until `until`; then everything is repaired and stays so."""

    def __init__(self, world: World, network: Network, machines: list[Machine], until: int) -> None:
        self._world = world
        self._network = network
        self._machines = machines
        self._until = until
        self._actions = (
            self._crash,
            self._crash,
            self._crash_all,
            self._partition,
            self._one_way,
            self._weather,
            self._weather,
            self._follow_primary,
            self._network.heal,
        )
        self._next()

    def _next(self) -> None:
        pause = self._world.random.randint(50 * MILLISECOND, 1_500 * MILLISECOND)
        self._world.after(pause, self._strike)

    def _strike(self) -> None:
        if self._world.now >= self._until:
            self._repair()
            return
        self._world.random.choice(self._actions)()
        self._next()

    def _repair(self) -> None:
        self._network.heal()
        for machine in self._machines:
            self._revive(machine)

    def _crash(self) -> None:
        self._fell(self._world.random.choice(self._machines))

    def _crash_all(self) -> None:
        if self._world.random.random() < 0.3:
            for machine in self._machines:
                self._fell(machine)

    def _fell(self, machine: Machine) -> None:
        if not machine.alive:
            return
        machine.crash()
        for other in self._machines:
            other.post(events.PeerDisconnected(machine.replica))
        outage = self._world.random.randint(MILLISECOND, LONGEST_OUTAGE)
        self._world.after(outage, lambda: self._revive(machine))

    def _revive(self, machine: Machine) -> None:
        if machine.alive or machine.halted:
            return
        machine.start()
        for other in self._machines:
            if other is not machine:
                other.post(events.PeerConnected(machine.replica))

    def _partition(self) -> None:
        endpoints = [machine.endpoint for machine in self._machines]
        self._world.random.shuffle(endpoints)
        cut = self._world.random.randint(1, len(endpoints) - 1)
        self._network.partition(endpoints[:cut], endpoints[cut:])

    def _one_way(self) -> None:
        sender, receiver = self._world.random.sample(self._machines, 2)
        self._network.block(sender.endpoint, receiver.endpoint)

    def _follow_primary(self) -> None:
        """Cut off whoever leads now."""
        for machine in self._machines:
            if machine.node is not None and machine.node.core.ordering.leading:
                others = [m.endpoint for m in self._machines if m is not machine]
                self._network.partition([machine.endpoint], others)

    def _weather(self) -> None:
        random = self._world.random
        self._network.weather = Weather(
            loss=random.choice((0.0, 0.05, 0.3)),
            duplication=random.choice((0.0, 0.1, 0.5)),
            least_delay=100,
            most_delay=random.choice((2, 20, 150)) * MILLISECOND,
        )
