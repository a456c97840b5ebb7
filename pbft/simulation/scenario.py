"""What one seed means: the cluster, its parameters, who is faulty, and what befalls it when."""

from random import Random

from msgspec import Struct

from pbft.config import Parameters

FAULTY_CHOICES = ("silent", "lie", "equivocate", "forge-request", "mute", "bad-signature")
SECOND = 1_000_000

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
    view_timeout_cap_ms=4_000,
    heartbeat_interval_ms=100,
    heartbeat_timeout_ms=500,
)


class Scenario(Struct, frozen=True):
    """One run. Times are virtual µs."""

    seed: int
    replicas: int = 4
    clients: int = 3
    operations: int = 20  # of each client
    keys: int = 4
    faulty: tuple[tuple[int, str], ...] = ()
    twin: int | None = None
    ed25519: bool = False
    trouble: int = 6 * SECOND  # how long faults are injected
    patience: int = 180 * SECOND  # how long after healing everything must be done
    parameters: Parameters = CALM


def scenario_of(
    seed: int, replicas: int | None = None, faulty: tuple[tuple[int, str], ...] | None = None
) -> Scenario:
    """The scenario of a seed; `replicas` and `faulty` override what the seed would choose."""
    random = Random(f"scenario {seed}")
    n = random.choice((4, 4, 4, 5, 7)) if replicas is None else replicas
    wrapped, twin = _faulty(random, n) if faulty is None else (faulty, None)
    return Scenario(
        seed=seed,
        replicas=n,
        clients=random.randint(2, 4),
        operations=random.randint(8, 24),
        keys=random.randint(1, 5),
        faulty=wrapped,
        twin=twin,
        ed25519=seed % 20 == 0,
        trouble=random.randint(2, 8) * SECOND,
    )


def _faulty(random: Random, n: int) -> tuple[tuple[tuple[int, str], ...], int | None]:
    f = (n - 1) // 3
    chosen = random.sample(range(n), random.randint(0, f))
    if chosen and random.random() < 0.2:
        *others, twin = chosen
        return tuple((r, random.choice(FAULTY_CHOICES)) for r in others), twin
    return tuple((r, random.choice(FAULTY_CHOICES)) for r in chosen), None
