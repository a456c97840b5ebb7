"""The store against a model: a whole copy of the keys per revision, on random operations."""

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from pbft.apps.kv_codec import (
    FROM_KEY,
    AnyOperation,
    Compact,
    CompactResult,
    Compare,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    decode_result,
)
from pbft.apps.kv_layout import decode_entry, decode_head, first_of, load_block, value_key
from pbft.apps.state_machine import Refused

Keys = dict[bytes, KeyValue]


def covers(key: bytes, end: bytes, name: bytes) -> bool:
    if end == b"":
        return name == key
    return name >= key and (end == FROM_KEY or name < end)


class Model:
    """etcd's semantics, written as plainly as possible."""

    def __init__(self, history: int) -> None:
        self.history = history
        self.past: dict[int, Keys] = {1: {}}
        self.revision = 1
        self.floor = 0
        self.now: Keys = {}
        self.dirty = False

    def apply(self, operation: AnyOperation) -> Any:
        self.now, self.dirty = dict(self.past[self.revision]), False
        if isinstance(operation, Compact):
            return self.compact(operation)
        if isinstance(operation, Txn):
            self.refuse_duplicates(operation)
        result = self.run(self.choose(operation))
        if self.dirty:
            self.revision += 1
            self.past[self.revision] = self.now
            self.floor = max(self.floor, self.revision - self.history + 1)
        return result

    def compact(self, operation: Compact) -> CompactResult:
        if operation.revision > self.revision:
            raise Refused("required revision is a future revision")
        if operation.revision <= self.floor:
            raise Refused("required revision has been compacted")
        self.floor = operation.revision
        return CompactResult(self.revision)

    @property
    def seen(self) -> int:
        return self.revision + self.dirty

    def touched(self, step: Any, names: tuple[bytes, ...]) -> list[tuple[str, bytes]]:
        """What a step may put or delete, over a known alphabet; refuses contradictions."""
        if isinstance(step, Put):
            return [("put", step.key)]
        if isinstance(step, Delete):
            return [("del", name) for name in names if covers(step.key, step.range_end, name)]
        if isinstance(step, Range):
            return []
        both = []
        for branch in (step.success, step.failure):
            so_far: list[tuple[str, bytes]] = []
            for child in branch:
                new = self.touched(child, names)
                for kind, name in new:
                    clash = {("put", name)} if kind == "del" else {("put", name), ("del", name)}
                    if clash & set(so_far):
                        raise Refused("duplicate key given in txn request")
                so_far += new
            both += so_far
        return both

    def refuse_duplicates(self, txn: Txn) -> None:
        self.touched(txn, KEYS)

    def choose(self, step: Any) -> Any:
        if not isinstance(step, Txn):
            return step
        succeeded = all(map(self.holds, step.compares))
        chosen = step.success if succeeded else step.failure
        return succeeded, [self.choose(child) for child in chosen]

    def holds(self, compare: Compare) -> bool:
        found = [kv for n, kv in self.now.items() if covers(compare.key, compare.range_end, n)]
        if not found and compare.target is Target.VALUE:
            return False
        absent = KeyValue(b"", b"", 0, 0, 0)
        return all(self.matches(compare, kv) for kv in found or [absent])

    @staticmethod
    def matches(compare: Compare, kv: KeyValue) -> bool:
        actual: Any = {
            Target.VERSION: kv.version,
            Target.CREATE: kv.create_revision,
            Target.MOD: kv.mod_revision,
            Target.VALUE: kv.value,
        }[compare.target]
        order = (actual > compare.operand) - (actual < compare.operand)
        return {
            Relation.EQUAL: order == 0,
            Relation.GREATER: order > 0,
            Relation.LESS: order < 0,
            Relation.NOT_EQUAL: order != 0,
        }[compare.relation]

    def run(self, step: Any) -> Any:
        if isinstance(step, tuple):
            results = tuple(self.run(child) for child in step[1])
            return TxnResult(self.seen, step[0], results)
        if isinstance(step, Put):
            return self.put(step)
        return self.delete(step) if isinstance(step, Delete) else self.range(step)

    def put(self, step: Put) -> PutResult:
        old = self.now.get(step.key)
        new = self.revision + 1
        create, version = (old.create_revision, old.version + 1) if old else (new, 1)
        self.now[step.key] = KeyValue(step.key, step.value, create, new, version)
        self.dirty = True
        return PutResult(self.seen, old if step.prev_kv else None)

    def delete(self, step: Delete) -> DeleteResult:
        doomed = sorted(name for name in self.now if covers(step.key, step.range_end, name))
        gone = tuple(self.now.pop(name) for name in doomed)
        self.dirty = self.dirty or bool(gone)
        return DeleteResult(self.seen, len(gone), gone if step.prev_kv else ())

    def range(self, step: Range) -> RangeResult:
        if step.revision > self.revision:
            raise Refused("required revision is a future revision")
        if step.revision and step.revision < self.floor:
            raise Refused("required revision has been compacted")
        keys = self.past[step.revision] if step.revision else self.now
        found = [keys[n] for n in sorted(keys) if covers(step.key, step.range_end, n)]
        if step.descending:
            found.reverse()
        if step.count_only:
            return RangeResult(self.seen, count=len(found))
        kept = found[: step.limit] if step.limit else found
        if step.keys_only:
            kept = [KeyValue(k.key, b"", *_numbers(k)) for k in kept]
        return RangeResult(self.seen, tuple(kept), len(kept) < len(found), len(kept))


def _numbers(kv: KeyValue) -> tuple[int, int, int]:
    return kv.create_revision, kv.mod_revision, kv.version


# --- strategies ------------------------------------------------------------------------------

KEYS = (b"\0", b"a", b"a\0", b"ab", b"b", b"b\xff", b"\xff")
keys = st.sampled_from(KEYS)
ends = st.sampled_from((b"", b"", b"\0", b"a\0", b"ab", b"b", b"c", b"\xff"))
values = st.sampled_from((b"", b"x", b"y", b"long" * 300))
flags = st.booleans()
revisions = st.one_of(st.just(0), st.integers(1, 40))

puts = st.builds(Put, keys, values, flags)
deletes = st.builds(Delete, keys, ends, flags)
ranges = st.builds(Range, keys, ends, st.integers(0, 3), revisions, flags, flags, flags)
numbers = st.builds(
    Compare,
    keys,
    st.sampled_from((Target.VERSION, Target.CREATE, Target.MOD)),
    st.sampled_from(Relation),
    st.integers(0, 12),
    ends,
)
contents = st.builds(Compare, keys, st.just(Target.VALUE), st.sampled_from(Relation), values, ends)
compares = st.lists(numbers | contents, max_size=2).map(tuple)


def txns(step: st.SearchStrategy[Any]) -> st.SearchStrategy[Txn]:
    steps = st.lists(step, max_size=3).map(tuple)
    return st.builds(Txn, compares, steps, steps)


steps = st.recursive(puts | deletes | ranges, txns, max_leaves=6)
compacts = st.builds(Compact, st.integers(0, 40))
operations = st.one_of(puts, puts, deletes, ranges, txns(steps), compacts)


def outcome(run: Any, operation: Any) -> Any:
    try:
        return run(operation)
    except Refused as refusal:
        return str(refusal)


WHOLE = Range(FROM_KEY, FROM_KEY)


@settings(max_examples=200, deadline=None)
@given(st.lists(operations, max_size=40), st.sampled_from((1, 3, 8, 1000)))
def test_the_store_behaves_like_the_model(new_store, script, history) -> None:
    store, model = new_store(history), Model(history)
    for operation in script:
        before = dict(model.past)
        expected = outcome(model.apply, operation)
        assert model.past.items() >= before.items()
        assert outcome(store.do, operation) == expected
    for revision in range(model.revision + 2):
        read = Range(FROM_KEY, FROM_KEY, revision=revision)
        expected = outcome(model.apply, read)
        assert outcome(store.do, read) == expected
        assert outcome(store.ask, read) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(operations, max_size=40), st.sampled_from((1, 3, 8)))
def test_what_no_read_can_reach_is_swept_away(new_store, script, history) -> None:
    store, model = new_store(history), Model(history)
    for operation in [*script, *[Put(b"z", b"")] * 150]:
        outcome(model.apply, operation)
        outcome(store.do, operation)
    head = decode_head(store.state.get(b"m"))
    assert head.compacted == model.floor
    first = head.oldest
    blocks = [load_block(store.state, n) for n in range(first, (head.changes >> 4) + 1)]
    assert [key for key, _ in store.state.range(b"r", b"s")] == [
        b"r" + n.to_bytes(8, "big") for n in range(first, first + len(blocks))
    ]
    assert all(block[-1].revision > model.floor for block in blocks[:-1])
    kept = {n for n, _ in enumerate((c for b in blocks for c in b), first_of(first))}
    entries = [decode_entry(raw) for _, raw in store.state.range(b"k", b"l")]
    assert all(entry.newest in kept for entry in entries if entry.held is None)
    held = [entry.held for entry in entries] + [c.replaced for b in blocks for c in b]
    apart = {value_key(each.apart) for each in held if each and each.apart}
    assert {key for key, _ in store.state.range(b"v", b"w")} == apart
    assert sum(entry.held is not None for entry in entries) == len(model.past[model.revision])


@pytest.mark.parametrize("seed", range(3))
def test_one_hot_key_is_read_at_every_revision_in_few_steps(new_store, seed) -> None:
    store = new_store()
    for number in range(1000 + seed):
        store.do(Put(b"hot", b"%d" % number))
        if number % 7 == seed:
            store.do(Put(b"cold", b""))
    latest = decode_head(store.state.get(b"m")).revision
    for revision in range(2, latest + 1, 13):
        store.state.reads = 0
        result = store.ask(Range(b"hot", revision=revision))
        assert store.state.reads <= 60  # log2(1000) is 10: a walk back would take up to 1000
        kv = result.kvs[0]
        assert kv.mod_revision <= revision
        assert kv.value == b"%d" % (kv.version - 1)
        assert revision - kv.mod_revision <= 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_operation_are_refused_alike(new_store, raw) -> None:
    store = new_store()
    answer = outcome(store.raw, raw)
    if isinstance(answer, bytes):
        assert decode_result(answer)
    else:
        assert answer == "malformed key-value operation" or "key" in answer or "rev" in answer
