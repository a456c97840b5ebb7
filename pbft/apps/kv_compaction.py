"""Forgetting history: which revisions stay readable, and sweeping away what no read can reach.

Raising the compacted revision takes effect for reads at once; the records go later, a few with
each operation that writes and the rest by ticks. Changes are looked at once, in order, as they fall
behind: the change before a compacted one is out of reach, and so is a compacted delete itself.
"""

from itertools import islice

from msgspec import Struct

from pbft.apps.kv_layout import (
    Change,
    Head,
    change_key,
    decode_change,
    decode_entry,
    entry_key,
    stamp_of,
)
from pbft.apps.state_machine import State

TICK_STEP = 1024  # changes that one tick looks at


class Passed(Struct, frozen=True):
    """What sweeping needs of a change that has fallen behind."""

    stamp: int
    key: bytes
    version: int
    previous: int


def raise_floor(head: Head, revision: int) -> Head:
    """`head` with all revisions below `revision` unreadable."""
    return Head(head.revision, max(head.compacted, revision), head.swept)


def pending(head: Head) -> bool:
    """Whether compacted changes wait to be looked at."""
    return head.compacted > 0 and head.swept < _last(head)


def _last(head: Head) -> int:
    return stamp_of(head.compacted + 1) - 1


def sweep(state: State, head: Head, limit: int) -> Head:
    """Look at up to `limit` more compacted changes and drop what they put out of reach."""
    if not pending(head):
        return head
    last = _last(head)
    records = state.range(change_key(head.swept + 1), change_key(last + 1))
    passed = [_passed(key, decode_change(raw)) for key, raw in islice(records, limit)]
    for change in passed:
        _drop_behind(state, change)
    swept = passed[-1].stamp if len(passed) == limit else last
    return Head(head.revision, head.compacted, swept)


def _passed(raw_key: bytes, change: Change) -> Passed:
    stamp = int.from_bytes(raw_key[1:], "big")
    return Passed(stamp, change.key, change.version, change.previous)


def _drop_behind(state: State, change: Passed) -> None:
    if change.previous:
        state.delete(change_key(change.previous))
    if not change.version:
        state.delete(change_key(change.stamp))
        _drop_entry(state, change)


def _drop_entry(state: State, change: Passed) -> None:
    """Forget the key itself, unless it was put again since."""
    raw = state.get(entry_key(change.key))
    if raw is not None and decode_entry(raw).stamp == change.stamp:
        state.delete(entry_key(change.key))
