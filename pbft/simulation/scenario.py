"""What one seed means: the cluster, its parameters, who is faulty, and what befalls it when."""

from random import Random

from msgspec import Struct
from msgspec.structs import replace

from client.retry import LAST_RETRY_US
from pbft.config import Parameters
from pbft.core.quorum import Quorum

FAULTY_CHOICES = ("silent", "lie", "equivocate", "forge-request", "mute", "bad-signature")
SIZES = (4, 4, 4, 4, 5, 6, 7)
WATERMARKS = ((8, 32), (8, 16), (4, 8))  # checkpoint interval and window
ED25519_EVERY = 16
SECOND = 1_000_000
LONG_HISTORY = 10_000

CALM = Parameters(
    checkpoint_interval=8,
    window=32,
    pipeline_depth=3,
    max_batch_requests=8,
    client_window=8,
    sessions_per_client=4,
    request_timeout_ms=400,
    fairness_batches=64,
    view_timeout_ms=400,
    view_timeout_cap_ms=1_600,
    heartbeat_interval_ms=100,
    heartbeat_timeout_ms=500,
    recovery_interval_ms=400,
)


class Scenario(Struct, frozen=True):
    """One run. Times are virtual µs."""

    seed: int
    replicas: int = 4
    clients: int = 3
    operations: int = 20  # of each client
    width: int = 1  # how many of them at a time
    keys: int = 4
    shared_key: bool = False  # the last two clients are processes with one key
    double_talk: bool = False  # one more client signs two contents under each bundle number
    faulty: tuple[tuple[int, str], ...] = ()
    twins: tuple[int, ...] = ()  # replicas that two machines share, both honest as they think
    kind: str = "mixed"  # of trouble: see pbft.simulation.trouble
    ed25519: bool = False
    trouble: int = 6 * SECOND  # how long faults are injected
    parameters: Parameters = CALM
    history: int = LONG_HISTORY  # revisions that the store keeps

    @property
    def patience(self) -> int:
        """How long after healing everything must be done: not long, since nothing is lost any more.

        A timer set in bad times may have to run out first. Then at most f views in a row have a
        faulty primary, and each costs the wait for a request and the wait for the next NEW-VIEW.
        Who is behind asks up to f liars in vain. A client that saw none of this repeats itself at
        the end of its longest pause (which is up to a quarter longer).
        """
        f = Quorum(self.replicas).f
        cap = self.parameters.view_timeout_cap_ms * 1_000
        return (1 + f) * 2 * cap + (1 + f) * SECOND + LAST_RETRY_US * 5 // 4

    @property
    def most_views(self) -> int:
        """How many views later everybody must have come to rest after healing (see above)."""
        return 2 + Quorum(self.replicas).f


def scenario_of(
    seed: int, replicas: int | None = None, faulty: tuple[tuple[int, str], ...] | None = None
) -> Scenario:
    """The scenario of a seed; `replicas` and `faulty` override what the seed would choose."""
    random = Random(f"scenario {seed}")
    n = random.choice(SIZES) if replicas is None else replicas
    wrapped, twins = _faulty(random, n) if faulty is None else (faulty, ())
    return Scenario(
        seed=seed,
        replicas=n,
        clients=random.randint(2, 3),
        operations=random.randint(6, 24),
        width=random.choice((1, 2, 4, 6)),
        keys=random.randint(1, 5),
        shared_key=random.random() < 0.4,
        double_talk=random.random() < 0.3,
        faulty=wrapped,
        twins=twins,
        ed25519=seed % ED25519_EVERY == 0,
        trouble=random.randint(2, 5) * SECOND,
        parameters=_parameters(random),
        history=random.choice((LONG_HISTORY, 8, 2)),
    )


def _parameters(random: Random) -> Parameters:
    interval, window = random.choice(WATERMARKS)
    return replace(
        CALM,
        checkpoint_interval=interval,
        window=window,
        pipeline_depth=random.randint(1, 4),
        sessions_per_client=random.choice((2, 3, 8)),
        max_state_bytes=random.choice((CALM.max_state_bytes, CALM.max_state_bytes, 3_000, 1_500)),
        session_idle_ms=random.choice((CALM.session_idle_ms, 2_000)),
    )


def _faulty(random: Random, n: int) -> tuple[tuple[tuple[int, str], ...], tuple[int, ...]]:
    f = Quorum(n).f
    chosen = random.sample(range(n), random.choice((0, *range(1, f + 1), f)))
    twins = tuple(replica for replica in chosen if random.random() < 0.3)
    wrapped = [(r, random.choice(FAULTY_CHOICES)) for r in chosen if r not in twins]
    return tuple(wrapped), twins


def stress_of(
    seed: int,
    kind: str,
    twins: tuple[int, ...] = (),
    faulty: tuple[tuple[int, str], ...] = (),
) -> Scenario:
    """Four busy replicas under nothing but one kind of trouble."""
    return Scenario(
        seed=seed,
        width=3,
        operations=80,
        keys=2,
        twins=twins,
        faulty=faulty,
        kind=kind,
        parameters=replace(CALM, pipeline_depth=4),
    )
