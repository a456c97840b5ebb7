"""One short story of a cluster, and a kill at any numbered point of it (R39, R40).

The story holds what a replica can be in the middle of: normal operation, checkpoints with their
flush, falling behind beyond the window and a state transfer, a view change with prepared requests,
a restart. It goes on when clients have their answers, not by the clock; so it comes to its end
whoever is killed. Up to the first kill a run is the same as without, so that points which were
counted once can be met one by one.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from pbft.core.quorum import Quorum
from pbft.simulation.cluster import SimulatedCluster
from pbft.simulation.machine import Machine
from pbft.simulation.outages import MILLISECOND, Outages
from pbft.simulation.runner import check_end, judge, unfinished
from pbft.simulation.scenario import CALM, Scenario

REPLICAS = 4
SEED = 2
"""Its story has everything: a view change with prepared requests, too."""
LONGEST = (5 * MILLISECOND, 50 * MILLISECOND, 600 * MILLISECOND)
LAGGARD, RESTARTED = 3, 2
ENTRIES = 72  # more than one bucket of the state's tree holds

PARAMETERS = replace(
    CALM,
    checkpoint_interval=2,
    window=4,
    pipeline_depth=2,
    request_timeout_ms=200,
    view_timeout_ms=200,
    view_timeout_cap_ms=800,
    heartbeat_interval_ms=100,
    heartbeat_timeout_ms=300,
)


Points = tuple[tuple[str, ...], ...]
"""Of each replica, the kinds of its points: the n-th is point n."""


class Kill(Struct, frozen=True):
    """Which replica dies at which of its points, counted from 1.

    It dies once more at point `again` of the life that follows; `others` die at the first moment
    too, wherever they are.
    """

    replica: int
    point: int
    again: int | None = None
    others: tuple[int, ...] = ()


class CrashRun(Struct, frozen=True):
    """What came of the story with one kill, or none; it holds if there are no `failures`."""

    kill: Kill | None
    failures: tuple[str, ...]
    kinds: tuple[str, ...]  # of the points at which it died
    recovery: int  # points from the restart until the replica was a member like the others again
    points: Points  # empty if somebody was killed
    batches: int
    highest_view: int
    counts: dict[str, int]
    trace_hash: str


def run_with(kill: Kill | None, seed: int = SEED) -> CrashRun:
    """Tell the story of `seed`, with or without a kill."""
    cluster = SimulatedCluster(
        Scenario(seed, REPLICAS, clients=2, operations=0, keys=3, parameters=PARAMETERS)
    )
    story = Story(cluster, kill)
    failures = judge(cluster, lambda _cluster: story.tell())
    return CrashRun(
        kill=kill,
        failures=failures,
        kinds=tuple(story.kinds),
        recovery=story.recovery,
        points=() if kill else story.points,
        batches=cluster.ledger.last,
        highest_view=cluster.highest_view,
        counts=dict(cluster.witness.counts),
        trace_hash=cluster.world.trace_hash,
    )


class Stuck(Exception):
    """The story does not go on."""


class Story:
    """Tells it, and kills."""

    def __init__(self, cluster: SimulatedCluster, kill: Kill | None) -> None:
        self.kinds: list[str] = []
        self.recovery = 0
        self.points: Points = ()
        self._cluster = cluster
        self._world = cluster.world
        self._network = cluster.network
        self._outages = Outages(cluster, LONGEST)
        self._kill = kill
        self._targets: list[int] = []  # the points still to come, counted over all lives
        self._reborn: int | None = None  # after so many points, until it has recovered
        for machine in cluster.machines:
            machine.on_power_cut = self._power_failed
        if kill is not None:
            self._victim = cluster.machines[kill.replica]
            self._targets = [kill.point]
            self._light()

    def tell(self) -> list[str]:
        """All of it. Returns what is wrong at the end, or why there is none."""
        self._cluster.start()
        try:
            self._go_on(4)
            self._fall_behind()
            self._change_the_view()
            self._restart()
            self._take_part()
        except Stuck:
            silent = [f"liveness: {machine.endpoint} may not vote" for machine in self._silent()]
            return [*unfinished(self._cluster), *silent]
        self.points = tuple(tuple(machine.points) for machine in self._cluster.machines)
        for machine in self._cluster.machines:
            machine.cut_power_after(None)
        return [*self._absent(), *check_end(self._cluster)]

    # -- the chapters

    def _fall_behind(self) -> None:
        """One replica misses more than the others' logs hold, and fetches the state."""
        self._fill()
        self._cut_off(LAGGARD)
        self._go_on(8)
        self._fill()
        self._outages.reconnect()
        self._settle()

    def _change_the_view(self) -> None:
        """The primary is cut off while a request is prepared somewhere, and executed nowhere.

        Where a kill has changed the course of things, that moment may pass unseen.
        """
        self._go_on(1)
        for client in self._cluster.clients:
            client.ask()
        self._until(lambda: self._prepared() or self._answered())
        self._cut_off(Quorum(REPLICAS).primary(self._cluster.highest_view))
        self._go_on(2)
        self._outages.reconnect()
        self._settle()

    def _prepared(self) -> bool:
        commit, executed = self._cluster.witness.promises.last_commit, self._cluster.ledger.last
        return any(commit(machine.replica) > executed for machine in self._cluster.machines)

    def _restart(self) -> None:
        self._go_on(1)
        self._outages.fell(self._cluster.machines[RESTARTED])
        self._light()
        self._go_on(2)
        self._settle()

    def _take_part(self) -> None:
        """Once more if somebody was killed in here: everybody is to vote after that.

        A replica may have started a moment ago, and not have heard yet whether it has forgotten
        anything (R41).
        """
        deaths = -1
        while deaths != len(self.kinds):
            self._until(lambda: not self._silent())
            deaths, self._before = len(self.kinds), self._cluster.ledger.last
            self._go_on(PARAMETERS.checkpoint_interval + 1)
            for client in self._cluster.clients:
                client.read_all()
            self._settle()

    def _silent(self) -> list[Machine]:
        machines = self._cluster.machines
        return [each for each in machines if each.node is None or each.node.core.gate.silent]

    def _absent(self) -> list[str]:
        """Everybody has executed all (or it would be stuck): everybody must have voted as well."""
        vote = self._cluster.witness.promises.last_commit
        absent = [m for m in self._cluster.machines if vote(m.replica) <= self._before]
        failures = [f"liveness: {machine.endpoint} votes no more" for machine in absent]
        if self._targets:
            failures.append(f"story: point {self._targets[0]} was not reached")
        return failures

    # -- how it goes on

    def _cut_off(self, replica: int) -> None:
        others = [m.endpoint for m in self._cluster.machines if m.replica != replica]
        self._network.partition([self._cluster.machines[replica].endpoint], others)

    def _go_on(self, batches: int) -> None:
        """Until so many batches more were executed."""
        goal = self._cluster.ledger.last + batches
        while self._cluster.ledger.last < goal:
            for client in self._cluster.clients:
                client.ask()
            self._until(self._answered)

    def _answered(self) -> bool:
        return all(client.done for client in self._cluster.clients)

    def _fill(self) -> None:
        """Change enough of the state for several rounds of a transfer."""
        self._cluster.clients[0].fill(ENTRIES)
        self._until(lambda: self._cluster.clients[0].done)

    def _settle(self) -> None:
        self._until(lambda: self._cluster.settled)

    def _until(self, done: Callable[[], bool]) -> None:
        patience = self._cluster.scenario.patience
        self._world.run_until(self._world.now + patience, lambda: self._watch() or done())
        if not done():
            raise Stuck

    def _watch(self) -> bool:
        """Has the killed replica recovered?"""
        if self._reborn is not None:
            self.recovery = len(self._victim.points) - self._reborn
            if _is_a_member(self._victim, self._cluster.ledger.last):
                self._reborn = None
        return False

    # -- the kill

    def _light(self) -> None:
        if self._targets:
            self._victim.cut_power_after(self._targets[0] - len(self._victim.points))

    def _power_failed(self, machine: Machine) -> None:
        """What it had sent last may have been in its buffers still: the seed's choice."""
        assert self._kill is not None
        passed = len(machine.points)
        self.kinds.append(machine.points[-1])
        self._targets = []
        if len(self.kinds) == 1:
            self._reborn = passed
            if self._kill.again is not None:
                self._targets = [passed + self._kill.again]
                self._light()
            for other in self._kill.others:
                self._outages.fell(self._cluster.machines[other])
        if self._world.random.random() < 0.5:
            self._network.lose(machine.endpoint)
        self._outages.mourn(machine)


def _is_a_member(machine: Machine, executed: int) -> bool:
    """Whether it votes, is in a view, and has executed all that anybody has."""
    if machine.node is None:
        return False
    core = machine.node.core
    return core.views.active and not core.gate.silent and machine.node.store.seq == executed


# --- which kills there are --------------------------------------------------------------------


def count_kinds(points: Points) -> list[tuple[str, list[int]]]:
    """How many points of each kind each replica has."""
    counts = [Counter(kinds) for kinds in points]
    kinds = sorted({kind for counter in counts for kind in counter})
    return [(kind, [counter[kind] for counter in counts]) for kind in kinds]


def single_kills(points: Points) -> list[Kill]:
    """One at every point of every replica."""
    return [
        Kill(replica, number)
        for replica, kinds in enumerate(points)
        for number in range(1, len(kinds) + 1)
    ]


def pairs_of(singles: Iterable[CrashRun], every: int) -> list[Kill]:
    """Two kills, of all that follow from the runs with one: each `every`-th.

    A second one at each point of the recovery; another replica, or all others, at the same moment.
    """
    runs = sorted(singles, key=lambda run: sort_key(run.kill))
    kills = [(run.kill, run.recovery) for run in runs if run.kill is not None]
    again = [
        replace(kill, again=number) for kill, recovery in kills for number in range(1, recovery + 1)
    ]
    together = [
        replace(kill, others=tuple((kill.replica + step) % REPLICAS for step in steps))
        for steps in ((1,), (2,), (3,), (1, 2, 3))
        for kill, _ in kills
    ]
    return [*again[::every], *together[::every]]


def sort_key(kill: Kill | None) -> tuple[int, ...]:
    """The order in which kills are listed."""
    return (kill.replica, kill.point, kill.again or 0, *kill.others) if kill else ()
