"""Forgetting history: which revisions stay readable, and dropping the blocks that none needs.

Raising the compacted revision takes effect for reads at once; the blocks go later, a few with each
operation that writes and the rest by ticks. A block is of no use once all its changes are at or
below the compacted revision: reads go back from now, and stop above it.
"""

from msgspec import structs

from pbft.apps.kv_layout import (
    Head,
    block_end,
    block_key,
    block_of,
    decode_entry,
    entry_key,
    first_of,
    load_block,
    value_key,
)
from pbft.apps.state_machine import ReadableState, State

TICK_STEP = 64  # blocks that one tick drops


def raise_floor(head: Head, revision: int) -> Head:
    """`head` with all revisions below `revision` unreadable."""
    return structs.replace(head, compacted=revision) if revision > head.compacted else head


def closed(head: Head) -> Head:
    """`head` without room in the newest block, so that it can go too; some numbers are left out."""
    if not head.changes:
        return head
    newest = block_end(block_of(head.changes))
    alone = block_of(newest) == head.oldest
    return structs.replace(head, changes=newest, due=head.revision if alone else head.due)


def pending(head: Head) -> bool:
    """Whether there are blocks to drop."""
    return 0 < head.due <= head.compacted


def sweep(state: State, head: Head, limit: int) -> Head:
    """Drop up to `limit` blocks that no read needs."""
    while limit and pending(head):
        _drop(state, head.oldest)
        oldest = head.oldest + 1
        head = structs.replace(head, oldest=oldest, due=_due(state, oldest, head.changes))
        limit -= 1
    return head


def _due(state: ReadableState, block: int, changes: int) -> int:
    """The revision of a block's last change, 0 while there is room for one."""
    return load_block(state, block)[-1].revision if changes >= block_end(block) else 0


def _drop(state: State, block: int) -> None:
    for number, change in enumerate(load_block(state, block), first_of(block)):
        if change.replaced and change.replaced.apart:
            state.delete(value_key(change.replaced.apart))
        if change.deleted:
            _drop_entry(state, change.key, number)
    state.delete(block_key(block))


def _drop_entry(state: State, key: bytes, deletion: int) -> None:
    """Forget the key itself, unless it was put again since."""
    raw = state.get(entry_key(key))
    if raw is not None and decode_entry(raw).newest == deletion:
        state.delete(entry_key(key))
