"""A dialler keeps one connection alive, and dials again when it is lost."""


async def connect_and_lose(network, client):
    """A dialler that was connected, and the port on which nobody listens any more."""
    first = await network.listen(server := network.Recorder())
    dialler = network.dial(client)
    await client.opened.get()
    first.close()
    await client.closed.get()
    await first.wait_closed()
    return server, dialler, first.port


def test_a_dialler_reconnects_after_the_listener_has_restarted(run):
    async def scenario(network):
        client = network.Recorder()
        server, dialler, port = await connect_and_lose(network, client)
        assert not dialler.send(b"into the void")
        assert network.dialler_counters["disconnected"] == 1
        await network.dialler_counters.reach("dial-failed")
        await network.listen(server, port=port)
        await client.opened.get()
        assert dialler.send(b"back again")
        assert (await server.frames.get())[1] == b"back again"

    run(scenario)


def test_a_dialler_that_is_hastened_does_not_wait(run, monkeypatch):
    """Without it, the other end would be dialled again in an hour."""
    for name in ("FIRST_RETRY_SECONDS", "LAST_RETRY_SECONDS"):
        monkeypatch.setattr(f"network.dialler.{name}", 3600.0)

    async def scenario(network):
        client = network.Recorder()
        server, dialler, port = await connect_and_lose(network, client)
        await network.listen(server, port=port)
        dialler.hasten()
        await client.opened.get()
        assert dialler.send(b"back again")

    run(scenario)


def test_a_closed_dialler_does_not_dial_again(run):
    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server)
        dialler = network.dial(client)
        connection = await client.opened.get()
        dialler.close()
        dialler.close()
        assert connection.closed
        assert not dialler.send(b"late")
        assert (await client.closed.get())[1] == "the dialler is closed"
        assert (await server.closed.get())[1] == "closed by the peer"
        assert len(server.connections) == 1

    run(scenario)


def test_nothing_is_queued_for_a_dialler_that_was_never_connected(run):
    async def scenario(network):
        listener = await network.listen(network.Recorder())
        listener.close()
        await listener.wait_closed()
        dialler = network.dial(network.Recorder())
        assert not dialler.send(b"lost")
        await network.dialler_counters.reach("dial-failed", 2)
        assert network.dialler_counters["disconnected"] == 1
        dialler.close()

    run(scenario)
