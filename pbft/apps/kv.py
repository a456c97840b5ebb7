"""The bundled application: a key-value store with etcd's data model.

Every operation that changes something makes one new revision. Keys remember the revision of their
creation and last change and count their puts; old revisions can be read until they are compacted,
which happens by itself for all but the last `history` of them. See `kv_codec` for the operations,
`kv_layout` for how it is kept.
"""

from pbft.apps.kv_codec import (
    AnyOperation,
    AnyResult,
    Compact,
    MalformedOperation,
    Put,
    Txn,
    decode_operation,
    encode,
)
from pbft.apps.kv_compaction import TICK_STEP, pending, sweep
from pbft.apps.kv_layout import HEAD, decode_head, encode_record
from pbft.apps.kv_txn import carry_out, check, choose
from pbft.apps.kv_view import Budget, View
from pbft.apps.kv_writer import Writer
from pbft.apps.state_machine import Context, ReadableState, Refused, State, StateMachine

MAX_RESULT_BYTES = 2 * 1024 * 1024


class KeyValueStore(StateMachine):
    """`history` is how many revisions stay readable; it must be the same on every replica."""

    def __init__(self, history: int = 10_000) -> None:
        if history < 1:
            raise ValueError("at least one revision, the present one, stays readable")
        self._history = history

    def apply(self, state: State, operation: bytes, context: Context) -> bytes:
        """Execute any operation of `kv_codec`. Raises Refused."""
        writer = Writer(state, Budget(MAX_RESULT_BYTES))
        wanted = _decode(operation)
        if isinstance(wanted, Compact):
            return encode(writer.compact(wanted.revision))
        result = _carry_out(writer, wanted)
        writer.commit(self._history)
        return encode(result)

    def query(self, state: ReadableState, operation: bytes) -> bytes:
        """Answer a Range, or a transaction of which the branch taken only reads. Raises Refused."""
        view = View(state, Budget(MAX_RESULT_BYTES))
        wanted = _decode(operation)
        if isinstance(wanted, Compact):
            raise Refused("a query cannot write: order this operation")
        return encode(_carry_out(view, wanted))

    def makes_room(self, operation: bytes) -> bool:
        """Whatever puts nothing: a deletion is history first, and gone once it is compacted."""
        return not _puts(_decode(operation))

    def next_deadline(self, state: ReadableState) -> int | None:
        """At once while compacted history waits to be swept away."""
        return 0 if pending(decode_head(state.get(HEAD))) else None

    def tick(self, state: State, context: Context) -> None:
        """Sweep some of it."""
        head = sweep(state, decode_head(state.get(HEAD)), TICK_STEP)
        state.put(HEAD, encode_record(head))


def _puts(wanted: AnyOperation) -> bool:
    if isinstance(wanted, Txn):
        return any(map(_puts, (*wanted.success, *wanted.failure)))
    return isinstance(wanted, Put)


def _carry_out(view: View, wanted: AnyOperation) -> AnyResult:
    if isinstance(wanted, Txn):
        check(wanted)
        return carry_out(view, choose(view, wanted))
    assert not isinstance(wanted, Compact)
    return view.do(wanted)


def _decode(operation: bytes) -> AnyOperation:
    try:
        return decode_operation(operation)
    except MalformedOperation as error:
        raise Refused(str(error)) from None
