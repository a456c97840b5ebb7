"""What must be true after every epoch of `pbft soak`, from what clients were told alone.

An epoch begins and ends while no client works, with a read of everything. So its history is judged
from a known state, and what was acknowledged in it must be there exactly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from pbft.cli.laboratory import Report
from pbft.core.quorum import Quorum
from pbft.simulation.history import Action, Operation
from pbft.simulation.linearizability import MAX_STEPS, Verdict, check

SHOWN = 3  # keys that a sentence names

State = Mapping[bytes, bytes | None]


class CheckFailed(Exception):
    """A check does not hold; the text is a sentence that says which."""


def check_history(start: State, history: list[Operation], max_steps: int = MAX_STEPS) -> None:
    """Raises CheckFailed unless `history` is proven linearizable from the state `start` on.

    An undecided history has failed.
    """
    before = min((operation.call for operation in history), default=0) - 2
    written = [
        Operation(-1, before, before, key, Action.PUT, value)
        for key, value in start.items()
        if value is not None
    ]
    judgement = check([*written, *history], max_steps)
    if judgement.verdict is not Verdict.LINEARIZABLE:
        raise CheckFailed(f"the history is not proven linearizable: {judgement}")


def last_reads(history: Iterable[Operation]) -> dict[bytes, bytes | None]:
    """What the last read of each key has found, once nothing is in flight any more."""
    reads = (op for op in history if op.action is Action.GET)
    return {op.key: op.result for op in sorted(reads, key=lambda op: op.reply or 0)}


def check_ledger(acknowledged: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> None:
    """Raises CheckFailed unless what is `found` is what was `acknowledged`, no more, no less."""
    lost = [key for key in acknowledged if key not in found]
    if lost:
        raise CheckFailed(f"{_count(lost, 'acknowledged write')} lost: {_some(lost)}")
    changed = [key for key, value in acknowledged.items() if found[key] != value]
    if changed:
        raise CheckFailed(f"{_count(changed, 'acknowledged write')} changed: {_some(changed)}")
    extra = [key for key in found if key not in acknowledged]
    if extra:
        raise CheckFailed(f"{_count(extra, 'key')} that nobody wrote, or deleted: {_some(extra)}")


def agree(reports: Mapping[int, Report], replicas: int) -> bool:
    """Whether all have executed the same, and have the same digest of their own after it."""
    states = {
        (r["last_executed"], r["stable_checkpoint"], r["state_digest"], r["own_digest"])
        for r in reports.values()
    }
    return len(reports) == replicas and len(states) == 1


def well(reports: Mapping[int, Report], replicas: int) -> bool:
    """Whether all may vote, and a quorum does so in one view.

    One alone that has left for a higher view may not come back (R27), and the others do not follow
    one alone (R35): until their next view change it executes what they commit, and no more.
    """
    views = Counter(report["view"] for report in reports.values() if report["active"])
    return (
        len(reports) == replicas
        and all(r["voting"] and not r.get("amnesiac") for r in reports.values())
        and max(views.values(), default=0) >= Quorum(replicas).q
    )


def check_evidence(reports: Mapping[int, Report]) -> None:
    """Raises CheckFailed if a replica holds evidence: here nobody is faulty."""
    for replica, report in reports.items():
        if report["counters"].get("evidence"):
            raise CheckFailed(f"replica {replica} has seen signed messages that contradict another")


def _count(keys: list[bytes], what: str) -> str:
    return f"{len(keys)} {what}" if len(keys) == 1 else f"{len(keys)} {what}s"


def _some(keys: list[bytes]) -> str:
    names = ", ".join(key.decode("ascii", "replace") for key in sorted(keys)[:SHOWN])
    return names + (", ..." if len(keys) > SHOWN else "")
