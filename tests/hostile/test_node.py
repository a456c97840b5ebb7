"""A real process that listens, and what it makes of everybody who connects.

Every attack is counted by its reason, costs the attacker its connection where it is a fault of
framing or authentication, and an honest client that was there before is served all the while.
"""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from raw_peer import Bystander, RawPeer
from target import D

from crypto.keys import load_signer
from crypto.signing import Ed25519Signer
from network.framing import encode_frame, frame_header
from network.limits import Limits
from pbft.cli.main import main
from pbft.codec import SIGNING_DOMAIN, encode, encode_packet, signing_input
from pbft.config_file import load_cluster
from pbft.messages import (
    MAX_REPLICAS,
    Checkpoint,
    Commit,
    Envelope,
    Prepare,
    PreparedProof,
    PrePrepare,
    Status,
    Suspect,
    ViewChange,
)
from pbft.node.shell import LIMITS

EVE = Ed25519Signer(b"z" * 32)
HOST = "127.0.0.1"
KILOBYTE = 1024
PATIENCE = 1.0  # s; an undisturbed answer takes a millisecond


def free_ports():
    """Two ports that nobody has at the moment."""
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class Victim:
    """Replica 0 of four as a process of its own; the other three are the attacker's."""

    def __init__(self, folder):
        self.keys = folder / "keys"
        port, self.metrics_port = free_ports()
        made = CliRunner().invoke(
            main, ["keygen", "--out", str(self.keys), "--base-port", str(port)]
        )
        assert made.exit_code == 0, made.output
        self.config = load_cluster(self.keys / "cluster.toml")
        self.replica = load_signer(self.keys / "replica-2.pem")
        self.client = load_signer(self.keys / "client-0.pem")
        self.address = (HOST, port)
        self.log = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pbft.cli.main", "node", "--replica", "0"),
                *("--keys", str(self.keys), "--data", str(folder / "data")),
                *("--metrics", f"{HOST}:{self.metrics_port}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            self.log.append(line)
            if "replica-started" in line:
                break
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        peer = self.connect(self.client)
        self.bystander = Bystander(peer, self.client, self.config.cluster_id)

    def _read_log(self):
        self.log.extend(self.process.stderr)

    def connect(self, signer=None):
        """A connection, authenticated if there is somebody to authenticate as."""
        peer = RawPeer(self.address)
        if signer is not None:
            peer.authenticate(signer, self.config.replicas[0].public_key, self.config.cluster_id)
        return peer

    def sign(self, body, cluster=None):
        raw = encode(body)
        message = signing_input(cluster or self.config.cluster_id, raw)
        return Envelope(raw, self.replica.sign(SIGNING_DOMAIN, message))

    def memory(self):
        """The most memory that the process has had so far, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    def stop(self):
        """SIGTERM; the exit code and the whole log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self._reader.join(20)
        return self.process.returncode, "".join(self.log)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """The process; at the end it must still be there, stop when asked to, and have no bug told."""
    victim = Victim(tmp_path_factory.mktemp("victim"))
    try:
        yield victim
        victim.bystander.report()
    finally:
        code, log = victim.stop()
    assert code == 0
    assert "Traceback" not in log
    assert "error" not in log.lower()


BAD_STREAMS = {
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", "frame-malformed"),
    "a frame of 0 bytes": (b"\xc4\x00", "frame-empty"),
    "a frame of 2^32-1 bytes": (b"\xc6\xff\xff\xff\xff", "frame-too-large"),
    "a negative number": (b"\xff", "frame-malformed"),
}


@pytest.mark.parametrize(("data", "reason"), BAD_STREAMS.values(), ids=BAD_STREAMS)
@pytest.mark.parametrize("known", [False, True], ids=["unauthenticated", "authenticated"])
def test_a_stream_that_is_none_of_frames_is_closed_and_counted(victim, data, reason, known):
    before = victim.bystander.counter(reason)
    peer = victim.connect(victim.replica if known else None)
    peer.send(data)
    assert peer.closed()
    assert victim.bystander.counter(reason) == before + 1


def test_a_frame_that_breaks_off_is_counted(victim):
    before = victim.bystander.counter("frame-truncated")
    peer = victim.connect(victim.replica)
    peer.send(encode_frame(bytes(1000))[:500])
    peer.close()
    assert victim.bystander.sees("frame-truncated", before + 1)


def greetings(victim):
    """What does not let anybody in, by the reason that is counted."""
    config = victim.config
    expected, cluster = config.replicas[0].public_key, config.cluster_id
    recorded = RawPeer(victim.address).authenticate(victim.replica, expected, cluster)
    yield "handshake-bad-signature", encode_frame(recorded)
    yield "handshake-malformed", encode_frame(b"\x91" * 400)
    yield "handshake-malformed", encode_frame(recorded[:1] + b"\x03" + recorded[2:])
    stranger = recorded.replace(victim.replica.public_key, EVE.public_key)
    yield "handshake-unauthorised", encode_frame(stranger)
    other = recorded.replace(victim.replica.public_key, victim.client.public_key)
    yield "handshake-bad-signature", encode_frame(other)


def test_whoever_cannot_authenticate_is_dropped_and_counted(victim):
    for reason, data in greetings(victim):
        before = victim.bystander.counter(reason)
        peer = victim.connect()
        peer.send(data)
        assert peer.closed()
        assert victim.bystander.counter(reason) == before + 1


def lies(victim):
    """Frames that an authenticated replica should not send, by the reason that is counted."""
    status = Status(2, 0, True, 0, 0, ())
    good = victim.sign(status)
    yield "malformed: not MessagePack", b"\xc1"
    yield "malformed: not MessagePack", encode(good) + b"\x00"
    yield "malformed: not a declared message type", b"\x93\x63" + encode(good)[2:]
    yield "malformed: encoding is not canonical", b"\xdc\x00\x03" + encode(good)[1:]
    yield "malformed: not a declared message type", b"\x91" * 100_000
    yield "bad-signature", encode(replace(good, signature=bytes(64)))
    yield "bad-signature", encode(victim.sign(status, cluster=b"c" * 32))
    yield "bad-signature", encode(replace(victim.sign(Suspect(2, 0)), body=encode(Suspect(2, 1))))
    yield "impersonation", encode(victim.sign(replace(status, replica=3)))
    yield "impersonation", encode(victim.sign(replace(status, replica=MAX_REPLICAS - 1)))
    yield "message-not-for-replicas-to-send", encode(victim.sign(PrePrepare(2, 0, 1, D)))
    yield "view-far-ahead", encode(victim.sign(ViewChange(2, 2**63 - 1, 0, D, (), ())))
    yield "vote-out-of-window", encode(victim.sign(Commit(2, 0, 2**63 - 1, D)))


def test_what_an_authenticated_replica_should_not_say_is_dropped_and_counted(victim):
    for reason, raw in lies(victim):
        before = victim.bystander.counter(reason)
        peer = victim.connect(victim.replica)
        peer.send(encode_frame(raw))
        assert victim.bystander.sees(reason, before + 1)
        assert victim.bystander.counter(reason) == before + 1
        peer.close()


def bomb():
    """A VIEW-CHANGE with 10^5 signatures in it."""
    votes = tuple(Envelope(encode(Prepare(i, 0, 5, D)), bytes(64)) for i in range(MAX_REPLICAS))
    proof = PreparedProof(Envelope(encode(PrePrepare(0, 0, 5, D)), bytes(64)), votes)
    checkpoints = tuple(Envelope(encode(Checkpoint(i, 4, D)), bytes(64)) for i in range(3))
    return ViewChange(2, 2, 4, D, checkpoints, (proof,) * 800)


@pytest.mark.rule("R43")
def test_a_view_change_with_masses_of_signatures_costs_no_signature_check(victim):
    reason = "certificate: more prepared certificates than the window holds"
    peer = victim.connect(victim.replica)
    before = victim.bystander.report()
    peer.send(encode_frame(encode_packet(victim.sign(bomb()))))
    assert victim.bystander.sees(reason, before["counters"].get(reason, 0) + 1)
    after = victim.bystander.report()
    questions = after["nonce"] - before["nonce"]  # each of them is signed
    assert after["verifications"] - before["verifications"] == questions
    peer.close()


def test_frames_that_are_announced_and_never_come_cost_no_memory(victim):
    victim.bystander.report()
    before = victim.memory()
    peers = [victim.connect(victim.replica) for _ in range(16)]
    for peer in peers:
        peer.send(frame_header(Limits().max_frame_bytes) + bytes(KILOBYTE))
    victim.bystander.report()
    assert victim.memory() - before < 16 * KILOBYTE
    for peer in peers:
        peer.close()


@pytest.mark.rule("R43")
def test_a_flood_of_connections_meets_a_limit_and_nobody_else_notices(victim):
    most = LIMITS.max_unauthenticated_per_address
    before = victim.bystander.counter("too-many-from-address")
    silent = [victim.connect() for _ in range(most)]
    for peer in silent:
        assert peer.frame() is not None  # the challenge
    for number in range(50):
        silent.append(victim.connect())
        assert silent[-1].frame() is not None
        assert silent[number].closed(), "the one that has waited longest makes room"
    assert victim.bystander.counter("too-many-from-address") == before + 50
    assert victim.connect(victim.client) is not None
    for peer in silent[50:]:
        peer.close()
    assert victim.bystander.sees("unauthenticated", most - 1)


@pytest.mark.rule("R43")
def test_a_flood_of_bad_signatures_over_many_connections_leaves_others_their_turns(victim):
    forged = replace(victim.sign(Suspect(2, 0)), signature=bytes(32) + b"\1" * 16 + bytes(16))
    flood = encode_frame(encode(forged)) * 20_000
    peers = [victim.connect(victim.replica) for _ in range(8)]
    threads = [threading.Thread(target=peer.send_until_closed, args=(flood,)) for peer in peers]
    for thread in threads:
        thread.start()
    assert victim.bystander.sees("bad-signature", 1000)
    waits = []
    for _ in range(100):
        asked = time.monotonic()
        victim.bystander.report()
        waits.append(time.monotonic() - asked)
    for peer in peers:
        peer.shut()
    for thread in threads:
        thread.join()
    assert max(waits) < PATIENCE


def test_the_counters_stand_in_the_status_and_among_the_metrics(victim):
    reasons = ("frame-empty", "malformed: not MessagePack")
    for reason, raw in zip(reasons, (b"\xc4\x00", encode_frame(b"\xc1")), strict=True):
        before = victim.bystander.counter(reason)
        victim.connect(victim.replica).send(raw)
        assert victim.bystander.sees(reason, before + 1)
    query = ["status", "--json", "--timeout", "0.5", "--keys", str(victim.keys)]
    asked = CliRunner().invoke(main, query)
    assert asked.exit_code == 0, asked.output
    counted = json.loads(asked.output)[0]["counters"]
    url = f"http://{HOST}:{victim.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    for reason in reasons:
        assert counted[reason] > 0
        assert f'pbft_events_total{{reason="{reason}"}} {float(counted[reason])}' in text
