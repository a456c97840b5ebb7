"""Results that are kept until their client acknowledges them, and what one client may cost."""

import pytest
from bench import ALICE, BOB, PARAMETERS, Bench, Journal, bundle, opening
from msgspec.structs import replace

from pbft.messages import (
    CROWDED,
    EXECUTED,
    OK,
    REFUSED,
    SESSION_EXPIRED,
)


@pytest.mark.rule("R17")
@pytest.mark.rule("R25")
def test_results_of_one_client_are_kept_up_to_a_bound_until_it_acknowledges_them() -> None:
    class Large(Journal):
        def query(self, state, operation) -> bytes:
            return bytes(400)

    bench = Bench(Large(), replace(PARAMETERS, max_kept_result_bytes=1000, max_result_bytes=450))
    bench.run(opening())
    codes = [bench.run(bundle(n, b"r", read_only=True)).results[0].code for n in (1, 2, 3)]
    assert codes == [OK, OK, REFUSED]
    assert bench.run(bundle(1, b"r", read_only=True)).results[0].code == OK  # the copy
    bench.executor.reload()
    assert bench.run(bundle(4, b"r", read_only=True)).results[0].code == REFUSED
    assert bench.run(bundle(5, b"r", acknowledged=4, read_only=True)).results[0].code == OK


@pytest.mark.rule("R45")
def test_results_that_nobody_will_acknowledge_make_room_for_others() -> None:
    """A process that has ended acknowledges nothing: its session goes, not the next one's work."""

    class Large(Journal):
        def query(self, state, operation) -> bytes:
            return bytes(400)

    parameters = replace(
        PARAMETERS, sessions_per_client=9, max_kept_result_bytes=1000, max_result_bytes=450
    )
    bench = Bench(Large(), parameters)
    for session in (1, 2, 3, 4):
        bench.run(opening(session=session))
        leaf = bench.run(bundle(1, b"r", session=session, read_only=True))
        assert [result.code for result in leaf.results] == [OK]
    expired = [bench.run(bundle(2, b"op", session=s)).status for s in (1, 2, 4)]
    assert expired == [SESSION_EXPIRED, SESSION_EXPIRED, EXECUTED]


@pytest.mark.rule("R43")
def test_all_bundles_of_a_client_in_one_batch_share_what_it_may_read() -> None:
    class Scan(Journal):
        def query(self, state, operation) -> bytes:
            return b"%d" % sum(1 for _ in state.range())

    bench = Bench(Scan(), replace(PARAMETERS, max_bundle_reads=3))
    for client in (ALICE, BOB):
        bench.run(opening(client=client))
    bench.store.begin_batch(bench.store.seq + 1, bench.store.time)
    for key in (b"a", b"b", b"c"):
        bench.store.application.put(key, b"")
    scans = [bundle(n, b"scan", client=c, read_only=True) for c in (ALICE, BOB) for n in (1, 2)]
    leaves = bench.batch(*scans).leaves
    assert [leaf.results[0].code for leaf in leaves] == [OK, CROWDED, OK, CROWDED]
    assert bench.run(bundle(3, b"scan", read_only=True)).results[0].code == OK


@pytest.mark.rule("R47")
def test_the_refusal_for_want_of_room_says_why() -> None:
    bench = Bench(Journal(), replace(PARAMETERS, max_kept_result_bytes=1))
    bench.run(opening())
    (result,) = bench.run(bundle(1, b"q", read_only=True)).results
    assert (result.code, result.value) == (REFUSED, b"too many results are not yet acknowledged")
