import asyncio
import errno
import socket

import pytest

from network.framing import encode_frame
from network.tcp import Limits


def test_frames_travel_both_ways_between_authenticated_ends(run):
    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server)
        dialler = network.dial(client)
        connection = await client.opened.get()
        assert connection.peer == network.alice.public_key
        assert dialler.send(b"hello")
        assert await server.frames.get() == (network.bob.public_key, b"hello")
        assert server.connections[0].send(b"x" * 300_000)
        assert await client.frames.get() == (network.alice.public_key, b"x" * 300_000)

    run(scenario)


def test_frames_arrive_in_order_and_whole(run):
    payloads = [bytes([n % 251]) * (n * 37 % 5000 + 1) for n in range(500)]

    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server)
        dialler = network.dial(client)
        await client.opened.get()
        assert all(map(dialler.send, payloads))
        assert [(await server.frames.get())[1] for _ in payloads] == payloads

    run(scenario)


def test_a_large_frame_right_behind_the_welcome_is_received(run):
    async def scenario(network):
        client = network.Recorder()
        await network.listen(network.Recorder(on_open=lambda each: each.send(b"x" * 10_000)))
        network.dial(client)
        assert (await client.frames.get())[1] == b"x" * 10_000

    run(scenario)


async def refused_dial(network, reason, counters, **dial):
    server, client = network.Recorder(), network.Recorder()
    await network.listen(server)
    network.dial(client, **dial)
    await counters.reach(reason)
    assert server.opened.empty()
    assert client.opened.empty()


def test_a_dialler_of_another_cluster_does_not_get_in(run):
    async def scenario(network):
        counters = network.dialler_counters
        await refused_dial(network, "handshake-wrong-cluster", counters, cluster=b"d" * 32)
        await network.counters.reach("unauthenticated")

    run(scenario)


def test_a_dialler_with_an_unknown_key_does_not_get_in(run):
    async def scenario(network):
        reason = "handshake-unauthorised"
        await refused_dial(network, reason, network.counters, signer=network.eve)

    run(scenario)


def test_a_dialler_does_not_talk_to_another_server_than_it_expects(run):
    async def scenario(network):
        reason, eve = "handshake-wrong-identity", network.eve.public_key
        await refused_dial(network, reason, network.dialler_counters, expected=eve)

    run(scenario)


def test_a_recorded_connection_cannot_be_replayed(run):
    async def scenario(network):
        server = network.Recorder()
        await network.listen(server)
        recorded = await network.raw_as_bob()
        replay = await network.raw()
        replay.send(recorded.sent)
        await replay.ended()
        assert network.counters["handshake-bad-signature"] == 1
        assert len(server.connections) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "frame-malformed"),
        (encode_frame(b"garbage"), "handshake-malformed"),
        (b"\xc4\x00", "frame-empty"),
        (b"\xc5\x02\x01", "frame-too-large"),
        (b"\xc6\xff\xff\xff\xff", "frame-too-large"),
    ],
)
def test_garbage_before_authentication_closes_the_connection(run, data, reason):
    async def scenario(network):
        server = network.Recorder()
        await network.listen(server)
        peer = await network.raw()
        peer.send(data)
        await peer.ended()
        assert network.counters == {reason: 1}
        assert server.opened.empty()

    run(scenario)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xc6\x00\x01\x00\x00", "frame-too-large"),
        (b"\xc4\x00", "frame-empty"),
        (b"\x00", "frame-malformed"),
    ],
)
def test_a_bad_frame_closes_an_authenticated_connection_and_no_other(run, data, reason):
    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server, Limits(max_frame_bytes=65_535))
        dialler = network.dial(client)
        await client.opened.get()
        bad = await network.raw_as_bob()
        bad.send(encode_frame(b"good") + data + encode_frame(b"late"))
        await bad.ended()
        assert (await server.closed.get())[1] == reason
        assert network.counters == {reason: 1}
        assert dialler.send(b"still here")
        assert [(await server.frames.get())[1] for _ in range(2)] == [b"good", b"still here"]

    run(scenario)


def test_somebody_who_dawdles_over_the_handshake_is_dropped(run):
    async def scenario(network):
        await network.listen(network.Recorder(), Limits(handshake_seconds=0.05))
        peer = await network.raw()
        peer.send(b"\xc4")
        await peer.ended()
        assert network.counters == {"handshake-timeout": 1}

    run(scenario)


@pytest.mark.rule("R43")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_unauthenticated=3), "too-many-unauthenticated"),
        (Limits(max_unauthenticated_per_address=3), "too-many-from-address"),
    ],
)
def test_of_too_many_unauthenticated_connections_the_oldest_goes(run, limits, reason):
    """So a flood of silent ones does not lock out somebody who authenticates at once."""

    async def scenario(network):
        await network.listen(network.Recorder(), limits)
        inside = [await network.raw() for _ in range(3)]
        for peer in inside:
            assert await peer.frame() is not None
        for number in range(5):
            inside.append(await network.raw())
            assert await inside[-1].frame() is not None
            await inside[number].ended()
        assert network.counters == {reason: 5}
        await network.raw_as_bob()
        assert network.counters == {reason: 6}

    run(scenario)


def test_a_lack_of_file_descriptors_is_counted_and_survived(run, monkeypatch):
    accept, failures = socket.socket.accept, iter([True])

    def accept_later(sock):
        if next(failures, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    async def scenario(network):
        monkeypatch.setattr(socket.socket, "accept", accept_later)
        await network.listen(network.Recorder())
        await network.raw_as_bob()
        assert network.counters == {"accept-failed": 1}

    run(scenario)


def test_authenticated_connections_do_not_count_as_unauthenticated(run):
    async def scenario(network):
        await network.listen(network.Recorder(), Limits(max_unauthenticated=1))
        for _ in range(4):
            await network.raw_as_bob()
        assert not network.counters

    run(scenario)


def test_of_too_many_connections_of_one_identity_the_oldest_goes(run):
    async def scenario(network):
        server = network.Recorder()
        await network.listen(server, Limits(max_connections_per_identity=2))
        peers = [await network.raw_as_bob() for _ in range(3)]
        await peers[0].ended()
        assert await server.closed.get() == (server.connections[0], "too-many-of-identity")
        assert network.counters == {"too-many-of-identity": 1}
        for peer in peers[1:]:
            peer.send(encode_frame(b"here"))
            await server.frames.get()

    run(scenario)


def test_a_listener_that_is_closed_at_once_leaves_its_port_free(run):
    async def scenario(network):
        first = await network.listen(network.Recorder())
        first.close()
        await first.wait_closed()
        await network.listen(network.Recorder(), port=first.port)
        assert await (await network.raw()).frame() is not None

    run(scenario)


def test_what_was_sent_before_closing_still_arrives(run):
    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server)
        dialler = network.dial(client)
        await client.opened.get()
        assert dialler.send(b"x" * 1_000_000)
        dialler.close()
        assert (await server.frames.get())[1] == b"x" * 1_000_000

    run(scenario)


@pytest.mark.rule("R25")
def test_what_a_peer_does_not_read_is_dropped_beyond_the_outbound_bound(run):
    limits = Limits(max_frame_bytes=100_000, outbound_bytes=1_000_000, close_seconds=0.05)

    async def scenario(network):
        server = network.Recorder()
        await network.listen(server, limits)
        peer = await network.raw_as_bob()
        peer.writer.transport.pause_reading()
        connection = await server.opened.get()
        taken = 0
        while connection.send(b"x" * 100_000):
            taken += 1
            assert taken < 1000
            await asyncio.sleep(0)  # let the kernel have what it takes
        assert taken >= 9
        assert network.counters == {"outbound-full": 1}
        connection.close("enough")
        assert (await server.closed.get())[1] == "enough"

    run(scenario)


def test_payloads_that_no_peer_would_accept_are_not_sent(run):
    async def scenario(network):
        server = network.Recorder()
        await network.listen(server, Limits(max_frame_bytes=1000))
        await network.raw_as_bob()
        connection = await server.opened.get()
        assert not connection.send(b"")
        assert not connection.send(b"x" * 1001)
        assert connection.send(b"x" * 1000)
        assert network.counters == {"outbound-size": 2}

    run(scenario)


@pytest.mark.rule("R43")
def test_one_identity_s_connections_share_its_turns(run):
    limits = Limits(frames_in_turn=12)

    async def scenario(network):
        server = network.Recorder()
        await network.listen(server, limits)
        peers = [await network.raw_as_bob() for _ in range(5)]
        assert [each.frames_in_turn for each in server.connections] == [2] * 5
        for peer in peers[:2]:
            peer.writer.close()
            await server.closed.get()
        assert [each.frames_in_turn for each in server.connections[2:]] == [4] * 3

    run(scenario)


@pytest.mark.rule("R43")
def test_many_frames_at_once_arrive_whole_and_in_order_although_in_turns(run):
    payloads = [b"%d" % number for number in range(1000)]

    async def scenario(network):
        server = network.Recorder()
        await network.listen(server, Limits(frames_in_turn=3))
        peer = await network.raw_as_bob()
        peer.send(b"".join(map(encode_frame, payloads)))
        assert [(await server.frames.get())[1] for _ in payloads] == payloads
        peer.send(encode_frame(b"and on"))
        assert (await server.frames.get())[1] == b"and on"
        assert not network.counters

    run(scenario)


def test_a_connection_that_ends_is_reported_once(run):
    async def scenario(network):
        server = network.Recorder()
        await network.listen(server)
        peer = await network.raw_as_bob()
        peer.writer.close()
        connection, reason = await server.closed.get()
        assert reason == "closed by the peer"
        assert connection.closed
        assert not connection.send(b"late")
        connection.close("again")
        await network.raw_as_bob()
        assert server.closed.empty()

    run(scenario)
