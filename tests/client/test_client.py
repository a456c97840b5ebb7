"""The asyncio client and its blocking twin over real sockets, against small replicas."""

import asyncio
import threading

import pytest

import client as package
from client import (
    Client,
    DeadlineExceeded,
    LocalError,
    NotConnected,
    OutcomeUnknown,
    RemoteError,
    SyncClient,
)
from crypto.keys import save_seed
from pbft.config_file import save_cluster


@pytest.fixture
def connect(fake_cluster):
    """Make a client of the fake cluster."""

    def make(kind=Client, deadline=20.0):
        keys = fake_cluster.keys
        return kind(keys.config, keys.client, deadline=deadline)

    return make


def test_operations_queries_and_reports_come_back_over_sockets(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            assert await client.submit(b"op") == b"did op"
            assert await client.query(b"get") == b"did get"
            assert await client.query(b"get", ordered=True) == b"did get"
            assert await client.status(2) == {"replica": 2}

    asyncio.run(scenario())
    assert fake_cluster.operations == [b"op", b"get"]


@pytest.mark.rule("R13")
def test_a_lying_replica_changes_no_answer_and_is_suspected(fake_cluster, connect):
    fake_cluster.liars = (1,)

    async def scenario():
        async with fake_cluster, connect() as client:
            for i in range(20):
                assert await client.submit(b"%d" % i) == b"did %d" % i
                assert await client.query(b"%d" % i) == b"did %d" % i
            with pytest.raises(RemoteError, match="not a JSON object"):
                await client.status(1)
            return client.suspicions

    suspicions = asyncio.run(scenario())
    assert suspicions
    assert {suspicion.replica for suspicion in suspicions} == {1}


def test_operations_of_many_tasks_share_bundles(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            await client.submit(b"first")
            calls = [client.submit(b"%d" % i) for i in range(200)]
            assert await asyncio.gather(*calls) == [b"did %d" % i for i in range(200)]

    asyncio.run(scenario())
    assert sorted(fake_cluster.operations) == sorted([b"first", *(b"%d" % i for i in range(200))])
    assert len(fake_cluster.executed) <= 4


def test_a_cancelled_call_leaves_the_session_in_order(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            await client.submit(b"first")
            fake_cluster.answering.clear()
            fake_cluster.arrived.clear()
            call = asyncio.create_task(client.submit(b"cancelled"))
            await fake_cluster.arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            fake_cluster.answering.set()
            fake_cluster.answer(list(fake_cluster.executed)[-1])
            for i in range(40):
                assert await client.submit(b"%d" % i) == b"did %d" % i

    asyncio.run(scenario())
    last = list(fake_cluster.executed.values())[-1]
    assert last.acknowledged == last.bundle - 1


def test_a_call_cancelled_before_it_was_sent_is_never_sent(fake_cluster, connect):
    async def scenario():
        async with connect() as client:
            call = asyncio.create_task(client.submit(b"cancelled"))
            kept = asyncio.create_task(client.submit(b"kept"))
            await asyncio.sleep(0)
            call.cancel()
            async with fake_cluster:
                assert await kept == b"did kept"

    asyncio.run(scenario())
    assert fake_cluster.operations == [b"kept"]


@pytest.mark.rule("R45")
def test_two_clients_may_share_one_key(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as one, connect() as other:
            calls = [each.submit(b"%d" % i) for i in range(20) for each in (one, other)]
            results = await asyncio.gather(*calls)
            assert results == [b"did %d" % i for i in range(20) for _ in range(2)]

    asyncio.run(scenario())
    assert len({body.session for body in fake_cluster.executed.values()}) == 2


def test_a_client_started_before_its_cluster_connects_when_it_can(fake_cluster, connect):
    async def scenario():
        async with connect() as client:
            call = asyncio.create_task(client.submit(b"op"))
            async with fake_cluster:
                assert await call == b"did op"

    asyncio.run(scenario())


def test_lost_connections_are_made_again(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            await client.submit(b"before")
            for replica in range(4):
                await fake_cluster.stop(replica)
                await fake_cluster.start(replica)
            assert await client.submit(b"after") == b"did after"

    asyncio.run(scenario())


@pytest.mark.rule("R14")
def test_a_dead_primary_does_not_keep_requests_from_the_others(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            await client.submit(b"before")
            await fake_cluster.stop(0)
            fake_cluster.silent = (0,)
            assert await client.submit(b"after") == b"did after"

    asyncio.run(scenario())


def test_a_deadline_passes_with_an_error_that_says_what_is_missing(fake_cluster, connect):
    async def scenario():
        async with connect() as client:
            with pytest.raises(NotConnected, match="0 of 4 replicas could be reached and 2 are"):
                await client.submit(b"op", deadline=0.05)
            with pytest.raises(NotConnected, match="replica 1 could not"):
                await client.status(1, deadline=0.05)
        fake_cluster.silent = (0, 1, 2)
        async with fake_cluster, connect() as client:
            await client.status(3)
            with pytest.raises(DeadlineExceeded) as caught:
                await client.submit(b"op", deadline=0.3)
            assert type(caught.value) is DeadlineExceeded
            assert not caught.value.sent

    asyncio.run(scenario())


def test_closing_ends_every_wait(fake_cluster, connect):
    async def scenario():
        async with fake_cluster, connect() as client:
            await client.submit(b"first")
            fake_cluster.answering.clear()
            fake_cluster.arrived.clear()
            sent = asyncio.create_task(client.submit(b"sent"))
            await fake_cluster.arrived.wait()
            unsent = asyncio.create_task(client.submit(b"unsent"))
            await asyncio.sleep(0)
            await client.close()
            await client.close()
            with pytest.raises(OutcomeUnknown):
                await sent
            with pytest.raises(LocalError, match="closed"):
                await unsent
            with pytest.raises(LocalError, match="not open"):
                await client.submit(b"late")

    asyncio.run(scenario())


def test_a_client_is_opened_from_files(fake_cluster, tmp_path):
    keys = fake_cluster.keys
    save_cluster(keys.config, tmp_path / "cluster.toml")
    save_seed(tmp_path / "client-0.pem", b"\x07" * 32)
    paths = tmp_path / "cluster.toml", tmp_path / "client-0.pem"

    async def scenario():
        async with fake_cluster, Client.connect(*paths) as client:
            assert await client.submit(b"op") == b"did op"
            with pytest.raises(LocalError, match="open already"):
                await client.__aenter__()

    asyncio.run(scenario())


def serve(fake_cluster, ready, stop):
    """Run the fake cluster in a thread until `stop` is set."""

    async def main():
        async with fake_cluster:
            ready.set()
            await asyncio.to_thread(stop.wait)

    asyncio.run(main())


@pytest.fixture
def served(fake_cluster):
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve, args=(fake_cluster, ready, stop))
    thread.start()
    assert ready.wait(10)
    yield fake_cluster
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_the_blocking_client_gives_the_same_answers(served, connect):
    served.liars = (3,)
    with connect(SyncClient) as client:
        assert client.submit(b"op") == b"did op"
        assert client.query(b"get") == b"did get"
        assert client.query(b"get", ordered=True) == b"did get"
        assert client.status(1) == {"replica": 1}
        with pytest.raises(LocalError, match="no replica 7"):
            client.status(7)
        with pytest.raises(LocalError, match="open already"):
            client.__enter__()
    client.close()
    with pytest.raises(LocalError, match="not open"):
        client.submit(b"late")


def test_threads_may_share_a_blocking_client(served, connect):
    results = {}
    with connect(SyncClient) as client:

        def work(i):
            results[i] = client.submit(b"%d" % i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert results == {i: b"did %d" % i for i in range(16)}
    assert len(served.operations) == 16


def test_the_package_names_what_it_offers():
    assert all(getattr(package, name).__name__ == name for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError):
        _ = package.Nothing
