"""Two clients with one key: each replica answers only the one that it was asked by."""

import asyncio

import pytest

from client.client import Client
from client.session import ClientSession
from pbft import KV
from pbft.codec import decode_packet
from pbft.messages import Reply
from tests.processes.running import Cluster


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[ClientSession, list[bytes]]:
    """What each session is given by the network."""
    heard: dict[ClientSession, list[bytes]] = {}
    receive = ClientSession.receive

    def listen(session: ClientSession, replica: int, packet: bytes) -> None:
        heard.setdefault(session, []).append(packet)
        receive(session, replica, packet)

    monkeypatch.setattr(ClientSession, "receive", listen)
    return heard


@pytest.mark.rule("R45")
def test_no_client_hears_what_another_with_its_key_is_told(
    calm: Cluster, answers: dict[ClientSession, list[bytes]]
) -> None:
    async def scenario() -> None:
        async with calm.client() as one, calm.client() as other:
            for client in (one, other):
                await KV(client).put(b"routes/first", b"")
                await known_to_all(client)
            for packets in answers.values():
                packets.clear()
            for number in range(10):
                await KV(one).put(b"routes/%d" % number, b"")
                await KV(one).get(b"routes/%d" % number)
            await known_to_all(one)
            await other.status(0)

    async def known_to_all(client: Client) -> None:
        # Whatever was sent to a replica before is dealt with once it answers this.
        for replica in calm.replicas:
            await client.status(replica)

    asyncio.run(scenario())
    busy, idle = answers.values()
    assert len([packet for packet in busy if isinstance(decode_packet(packet), Reply)]) >= 20
    assert len(idle) == 1
