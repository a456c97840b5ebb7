"""What four nodes and their clients cost when nothing stands between them, in one process.

No sockets, no other processes, no disk that is waited for (the data is in memory): the processor
time of the program alone, which is far steadier than a cluster's throughput. Everybody takes turns,
so the requests of all clients make one batch.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import click
import machine
import msgspec

from client.session import ClientSession
from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.apps.kv import KeyValueStore
from pbft.apps.kv_codec import Put, encode
from pbft.codec import encode_packet
from pbft.config import ClientInfo, ClusterConfig, Parameters, ReplicaInfo
from pbft.core.context import Context
from pbft.core.records import TABLES
from pbft.messages import Packet
from pbft.node.log_store import LogStore
from pbft.node.shell import SystemClock
from pbft.node.turn import Node
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES

REPLICAS = 4
VALUE_BYTES = 100
MAP_BYTES = 1 << 32


class Post:
    """The Transport port of one replica: packets wait for their receivers' turn."""

    def __init__(self, group: "Group", me: int) -> None:
        self._group = group
        self._me = me

    def send(self, to: int, packet: Packet) -> None:
        self._group.nodes[to].receive(encode_packet(packet), self._me)

    def broadcast(self, packet: Packet) -> None:
        raw = encode_packet(packet)
        for replica, node in enumerate(self._group.nodes):
            if replica != self._me:
                node.receive(raw, self._me)

    def reply(self, client: bytes, session: int, packet: Packet) -> None:
        self._group.replies[client].append((self._me, encode_packet(packet)))

    def answer(self, client: bytes, nonce: int, packet: Packet) -> None:
        self.reply(client, nonce, packet)


class Group:
    """Nodes and client sessions that take turns."""

    def __init__(self, folder: Path, clients: int, key_space: int) -> None:
        replicas = [Ed25519Signer(bytes([number]) * 32) for number in range(REPLICAS)]
        keys = [Ed25519Signer(number.to_bytes(32, "big")) for number in range(1, clients + 1)]
        self.config = ClusterConfig(
            tuple(ReplicaInfo(i, "none", i + 1, s.public_key) for i, s in enumerate(replicas)),
            tuple(ClientInfo(f"client-{i}", s.public_key) for i, s in enumerate(keys)),
            Parameters(),
        )
        self._random = Random(0)
        self._key_space = key_space
        self.spent = Counter[str]()  # processor time (s), of replicas and of clients
        self.done = 0
        self.sessions = {
            key.public_key: ClientSession(self.config, key, Ed25519Verifier(), number)
            for number, key in enumerate(keys)
        }
        self.replies: dict[bytes, list[tuple[int, bytes]]] = {key: [] for key in self.sessions}
        for session in self.sessions.values():
            for replica in range(REPLICAS):
                session.connected(replica)
        self.nodes: list[Node] = []
        self.logs: list[LogStore] = []
        for number, signer in enumerate(replicas):
            self._add_node(folder, number, signer)
        for number, node in enumerate(self.nodes):
            node.start(number)

    def _add_node(self, folder: Path, number: int, signer: Ed25519Signer) -> None:
        log = LmdbDatabase(folder / f"log-{number}", TABLES, MAP_BYTES)
        state = LmdbDatabase(folder / f"state-{number}", STATE_TABLES, MAP_BYTES)
        self.logs.append(LogStore(log))
        node = Node(
            Context(self.config, number, signer),
            KeyValueStore(),
            self.logs[-1],
            StateStore(state),
            SystemClock(),
            Post(self, number),
            Ed25519Verifier(),
            lambda _note: None,
            Counter(),
        )
        self.nodes.append(node)

    def submit(self, session: ClientSession) -> None:
        """One more put of a random key."""
        key = b"bench/%09d" % self._random.randrange(self._key_space)
        session.submit(encode(Put(key, self._random.randbytes(VALUE_BYTES))))

    def run_until(self, done: int) -> None:
        """Everybody takes turns until so many operations are done."""
        while self.done < done:
            with self._timed("replicas"):
                for node in self.nodes:
                    node.run()
            with self._timed("clients"):
                for key, session in self.sessions.items():
                    self._poll(key, session)

    def _poll(self, key: bytes, session: ClientSession) -> None:
        for replica, packet in self.replies[key]:
            session.receive(replica, packet)
        self.replies[key].clear()
        if not session.pending:
            return
        finished = self._hand_on(key, session)
        for _ in range(finished):
            self.submit(session)
        self.done += finished
        if finished:
            self._hand_on(key, session)

    def _hand_on(self, key: bytes, session: ClientSession) -> int:
        """Pass on what the session sends; how many operations it has finished."""
        output = session.poll(time.time_ns() // 1000)
        for replica, packet in output.sends:
            self.nodes[replica].receive(packet, key)
        return len(output.completions)

    @contextmanager
    def _timed(self, whose: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.spent[whose] += time.process_time() - began

    def counts(self) -> Counter[str]:
        """What has been done so far."""
        return Counter(
            operations=self.done,
            batches=self.nodes[0].core.queue.executed,
            verifications=sum(node.authenticator.verifications for node in self.nodes),
            commits=sum(log.commits for log in self.logs),
        )


@click.command()
@click.option("--clients", default=64, show_default=True, help="Each with its own key.")
@click.option("--in-flight", default=1, show_default=True, help="Operations of each client.")
@click.option("--operations", default=5000, show_default=True)
@click.option("--key-space", default=100_000, show_default=True)
def main(clients: int, in_flight: int, operations: int, key_space: int) -> None:
    """Run so many operations after a fifth of them to warm up; print figures per operation."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        group = Group(Path(folder), clients, key_space)
        for session in group.sessions.values():
            for _ in range(in_flight):
                group.submit(session)
        group.run_until(operations // 5)
        before = group.counts()
        group.spent.clear()
        group.run_until(group.done + operations)
        counts = group.counts() - before
    done = counts["operations"]
    figures = {
        "machine": machine.description(),
        "operations": done,
        "operations_per_batch": round(done / counts["batches"], 1),
        "processor_us_per_operation": {
            whose: round(1e6 * seconds / done, 1) for whose, seconds in group.spent.items()
        },
        "verifications_per_operation": round(counts["verifications"] / done, 2),
        "log_commits_per_batch_and_replica": round(
            counts["commits"] / counts["batches"] / REPLICAS, 2
        ),
    }
    click.echo(msgspec.json.format(msgspec.json.encode(figures)))


if __name__ == "__main__":
    main()
