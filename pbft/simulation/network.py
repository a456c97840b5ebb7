"""The simulated network: loss, duplication, delay, reordering, partitions, also one-way ones."""

from collections.abc import Callable
from zlib import crc32

from msgspec import Struct

from pbft.simulation.world import World

Endpoint = str
"""`r0`, `r1`, ... for machines of replicas (`t1` for the twin of 1), `c0`, ... for clients."""


class Weather(Struct):
    """How the network treats each packet; probabilities in 0..1, delays in µs.

    A `straggler` takes ten times as long as the slowest other: it arrives after what was sent much
    later, perhaps in another view.
    """

    loss: float = 0.0
    duplication: float = 0.0
    least_delay: int = 200
    most_delay: int = 3_000
    straggler: float = 0.0


class Network:
    """Carries bytes between endpoints."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.weather = Weather()
        self._blocked: dict[tuple[Endpoint, Endpoint], None] = {}
        self._lost: dict[Endpoint, int] = {}  # how often what was under way was lost
        self._receivers: dict[Endpoint, Callable[[Endpoint, bytes], None]] = {}
        self.delivered = 0
        self.observer: Callable[[Endpoint, Endpoint, bytes], None] | None = None

    def attach(self, endpoint: Endpoint, receive: Callable[[Endpoint, bytes], None]) -> None:
        """Let `receive(sender, raw)` take what is sent to `endpoint`."""
        self._receivers[endpoint] = receive

    def send(self, sender: Endpoint, receiver: Endpoint, raw: bytes) -> None:
        """Send; it may arrive once, more often, late, or never."""
        random, weather = self._world.random, self.weather
        if random.random() < weather.loss:
            return
        copies = 2 if random.random() < weather.duplication else 1
        for _ in range(copies):
            delay = random.randint(weather.least_delay, weather.most_delay)
            if weather.straggler and random.random() < weather.straggler:
                delay += 10 * weather.most_delay
            self._world.after(delay, self._arrival(sender, receiver, raw))

    def _arrival(self, sender: Endpoint, receiver: Endpoint, raw: bytes) -> Callable[[], None]:
        lost = self._lost.get(sender)
        return lambda: self._arrive(sender, receiver, raw, lost)

    def _arrive(self, sender: Endpoint, receiver: Endpoint, raw: bytes, lost: int | None) -> None:
        if (sender, receiver) in self._blocked or self._lost.get(sender) != lost:
            return
        self.delivered += 1
        self._world.record(sender, receiver, len(raw), crc32(raw))
        if self.observer is not None:
            self.observer(sender, receiver, raw)
        self._receivers[receiver](sender, raw)

    def lose(self, sender: Endpoint) -> None:
        """Nothing that `sender` has sent and that is still under way arrives."""
        self._lost[sender] = self._lost.get(sender, 0) + 1

    def block(self, sender: Endpoint, receiver: Endpoint) -> None:
        """Nothing arrives at `receiver` from `sender` from now on."""
        self._blocked[sender, receiver] = None

    def partition(self, *groups: list[Endpoint]) -> None:
        """Only endpoints of one group hear each other; who is in no group hears everybody."""
        for one in groups:
            for other in groups:
                if one is not other:
                    self.deafen(one, other)

    def deafen(self, receivers: list[Endpoint], senders: list[Endpoint]) -> None:
        """None of `receivers` hears any of `senders`."""
        for sender in senders:
            for receiver in receivers:
                self.block(sender, receiver)

    def reconnect(self) -> None:
        """Everybody hears everybody, in whatever weather there is."""
        self._blocked.clear()

    def heal(self) -> None:
        """Everybody hears everybody, and nothing is lost any more."""
        self.reconnect()
        self.weather = Weather()
