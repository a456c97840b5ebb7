"""Histories of one register: written by hand, simulated, and made wrong."""

from random import Random

import msgspec

from pbft.simulation.history import Action, Operation

KEY = b"color"
FOREVER = 10**9


def put(client: int, call: int, reply: int | None, value: bytes, key: bytes = KEY) -> Operation:
    return Operation(client, call, reply, key, Action.PUT, argument=value)


def get(client: int, call: int, reply: int | None, found: bytes | None) -> Operation:
    return Operation(client, call, reply, KEY, Action.GET, result=found)


def delete(client: int, call: int, reply: int | None) -> Operation:
    return Operation(client, call, reply, KEY, Action.DELETE)


def swap(
    client: int, call: int, reply: int | None, expected: bytes | None, value: bytes
) -> Operation:
    return Operation(client, call, reply, KEY, Action.CAS, argument=value, expected=expected)


def failed_swap(
    client: int, call: int, reply: int, expected: bytes | None, value: bytes, found: bytes | None
) -> Operation:
    won = swap(client, call, reply, expected, value)
    return msgspec.structs.replace(won, result=found, succeeded=False)


def simulated(
    random: Random,
    operations: int,
    clients: int,
    *,
    values: int | None = None,
    unknown: float = 0.1,
    longest: int = 100,
) -> list[Operation]:
    """What `clients` would see of an atomic register, by drawn linearisation points.

    Values repeat if there are only `values` of them. A client whose outcome is unknown goes on.
    """
    points: list[tuple[int, int, int, int | None]] = []
    for client in range(clients):
        time = random.randrange(longest)
        for _ in range(operations // clients):
            end = time + random.randrange(1, longest)
            lost = random.random() < unknown
            point = random.randint(time, 3 * end if lost else end)
            points.append((point, client, time, None if lost else end))
            time = end + random.randrange(1, longest // 2)
    value: bytes | None = None
    history = []
    for number, (_, client, call, reply) in enumerate(sorted(points, key=lambda p: p[0])):
        takes_effect = reply is not None or random.random() < 0.5
        new = b"%d" % (number if values is None else random.randrange(values))
        operation, after = perform(random, client, call, reply, value, new)
        history.append(operation)
        value = after if takes_effect else value
    random.shuffle(history)
    return history


def perform(
    random: Random, client: int, call: int, reply: int | None, value: bytes | None, new: bytes
) -> tuple[Operation, bytes | None]:
    action = random.choice((Action.PUT, Action.GET, Action.GET, Action.DELETE, Action.CAS))
    if action is Action.PUT:
        return put(client, call, reply, new), new
    if action is Action.GET:
        return get(client, call, reply, value), value
    if action is Action.DELETE:
        return delete(client, call, reply), None
    if random.random() < 0.6:
        return swap(client, call, reply, value, new), new
    other = b"other" if value is None or random.random() < 0.5 else None
    if reply is None:
        return swap(client, call, reply, other, new), value
    return failed_swap(client, call, reply, other, new, value), value


def mutated(random: Random, history: list[Operation]) -> list[Operation] | None:
    """The history with another result of one operation, or None if it has none to change."""
    results = [op for op in history if op.action in (Action.GET, Action.CAS) and op.reply]
    if not results:
        return None
    victim = random.choice(results)
    value = random.choice([op.argument for op in history])
    if victim.action is Action.CAS:
        changed = msgspec.structs.replace(victim, succeeded=not victim.succeeded, result=value)
    else:
        changed = msgspec.structs.replace(victim, result=value)
    return [changed if op is victim else op for op in history]
