"""One replica alone: how it stops, and what it refuses to start with."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes.running import COMMAND, make_keys, pbft


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of a cluster that is not for laboratories, and of which nothing runs."""
    out = tmp_path_factory.mktemp("made") / "keys"
    make_keys(out, 4)
    return out


@pytest.fixture
def keys(made: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    shutil.copytree(made, tmp_path / "keys")
    return tmp_path / "keys"


@contextmanager
def running(keys: Path, data: Path) -> Iterator["subprocess.Popen[str]"]:
    """Replica 0, from the moment on at which it says that it has started."""
    command = [*COMMAND, "node", "--replica", "0", "--keys", str(keys), "--data", str(data)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "replica-started" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_replica_that_is_asked_to_stop_ends_with_exit_code_0(
    keys: Path, tmp_path: Path, number: signal.Signals
) -> None:
    for _ in range(2):  # what it leaves behind does not stand in its own way
        with running(keys, tmp_path / "data") as process:
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
            assert process.returncode == 0
            assert errors.splitlines()[-1].endswith('replica-stopped replica=0 reason="asked to"')


# --- refusals: each spoils something, and names what the one sentence must hold ------------------


def readable_key(keys: Path, _data: Path) -> None:
    (keys / "replica-0.pem").chmod(0o640)


def strange_key(keys: Path, _data: Path) -> None:
    shutil.copy2(keys / "replica-1.pem", keys / "replica-0.pem")


def no_key(keys: Path, _data: Path) -> None:
    (keys / "replica-0.pem").unlink()


def spoiled_key(keys: Path, _data: Path) -> None:
    (keys / "replica-0.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n")


def edited_cluster(keys: Path, _data: Path) -> None:
    path = keys / "cluster.toml"
    path.write_text(path.read_text().replace("lab = false", "lab = true"))


def no_cluster(keys: Path, _data: Path) -> None:
    (keys / "cluster.toml").unlink()


def data_is_a_file(_keys: Path, data: Path) -> None:
    data.write_text("hello")


def data_of_another_replica(keys: Path, data: Path) -> None:
    started(keys, data, 1)


def data_of_another_cluster(keys: Path, data: Path) -> None:
    other = keys.parent / "other"
    make_keys(other, 4)
    started(other, data, 0)


def data_has_lost_its_log(keys: Path, data: Path) -> None:
    started(keys, data, 0)
    shutil.rmtree(data / "log")


def data_is_damaged(keys: Path, data: Path) -> None:
    started(keys, data, 0)
    with (data / "log" / "data.mdb").open("r+b") as file:
        file.write(os.urandom(8192))


def started(keys: Path, data: Path, replica: int) -> None:
    """Let a replica make its data directory, and stop at a place that it cannot listen on."""
    with taken_port(keys, replica):
        arguments = ("--replica", str(replica), "--keys", keys, "--data", data)
        assert "cannot listen" in pbft("node", *arguments).stderr


@contextmanager
def taken_port(keys: Path, replica: int) -> Iterator[str]:
    """Somebody else listens on this replica's port."""
    lines = (keys / "cluster.toml").read_text().splitlines()
    port = [line for line in lines if line.startswith("port = ")][replica].removeprefix("port = ")
    with socket.create_server(("127.0.0.1", int(port))):
        yield port


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (readable_key, "others may access the private key {keys}/replica-0.pem: run chmod 600"),
        (strange_key, "{keys}/replica-0.pem is not the key that cluster.toml has for replica 0"),
        (no_key, "{keys}/replica-0.pem does not exist"),
        (spoiled_key, "{keys}/replica-0.pem is not a PKCS#8 PEM private key"),
        (edited_cluster, "{keys}/cluster.toml: cluster.toml was edited: its id is"),
        (no_cluster, "{keys}/cluster.toml: there is no such file (`pbft keygen` makes one)"),
        (data_is_a_file, "cannot use the data directory {data}: it is not a folder"),
        (data_of_another_replica, "{data}/log holds the data of replica 1, not of replica 0"),
        (data_of_another_cluster, "{data}/log holds the data of another cluster"),
        (data_has_lost_its_log, "{data}/log has lost its data"),
        (data_is_damaged, "{data}/log: the file is damaged (its page 0 is not that of an LMDB"),
    ],
)
def test_a_replica_refuses_to_start(
    keys: Path, tmp_path: Path, spoil: Callable[[Path, Path], None], reason: str
) -> None:
    data = tmp_path / "data"
    spoil(keys, data)
    assert reason.format(keys=keys, data=data) in refusal(keys, data)


def refusal(keys: Path, data: Path, *options: str) -> str:
    """The one sentence that `pbft node` ends with."""
    ended = pbft("node", "--replica", "0", "--keys", keys, "--data", data, *options)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("pbft: ")
    assert ended.stderr.count("\n") == 1
    assert "unexpected" not in ended.stderr
    return ended.stderr


def test_a_data_directory_takes_one_replica_at_a_time(keys: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(keys, data) as process:
        assert f"{data} is in use by process {process.pid}" in refusal(keys, data)


def test_a_port_that_is_taken_is_named(keys: Path, tmp_path: Path) -> None:
    with taken_port(keys, 0) as port:
        reason = f"replica 0 cannot listen on 127.0.0.1:{port}: Address already in use"
        assert reason in refusal(keys, tmp_path / "data")
        # ... and that was all: the replica starts once the port is free.
    with running(keys, tmp_path / "data"):
        pass


def test_a_metrics_port_that_is_taken_is_named(keys: Path, tmp_path: Path) -> None:
    with taken_port(keys, 1) as port:
        options = ("--metrics", f"127.0.0.1:{port}")
        assert f" and 127.0.0.1:{port}: Address" in refusal(keys, tmp_path / "data", *options)


def test_faulty_modes_want_a_laboratory(keys: Path, tmp_path: Path) -> None:
    reason = "faulty modes run only in a cluster made with `pbft keygen --lab`"
    assert reason in refusal(keys, tmp_path / "data", "--faulty", "lie")


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("nowhere:Application", "cannot be loaded: No module named 'nowhere'"),
        ("pbft.apps.kv:Nothing", "has no attribute 'Nothing'"),
        ("pbft.apps.kv", "--app wants MODULE:CLASS"),
        ("os:getcwd", "is not a class derived from StateMachine"),
        ("pbft:StateMachine", "cannot be loaded: TypeError: Can't instantiate abstract class"),
    ],
)
def test_an_application_that_cannot_be_run_is_refused(
    keys: Path, tmp_path: Path, app: str, reason: str
) -> None:
    assert reason in refusal(keys, tmp_path / "data", "--app", app)
