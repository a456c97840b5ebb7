"""What the README tells people to type, typed: its commands and programs, against real replicas."""

import re
import shlex
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes.running import free_ports

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
MAKE, SERVE, TOUR, PROOFS, LOSS, RESTORE, *OTHERS = SHELL
TALLY, LEDGER, LEDGER_CLIENT, _INSTALL, MACHINES, MACHINE, FAULTY = OTHERS
ASYNC, SYNC, APPLICATION, APPLICATION_CLIENT = PYTHON


class Site:
    """A folder that looks like a checkout, in which the commands run on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(8)  # replicas, and their metrics
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "tally.py").write_text(APPLICATION)

    def _adapt(self, command: str) -> str:
        """Other ports than the default ones, which may be taken; this interpreter's commands."""
        command = command.replace("pbft keygen", f"pbft keygen --base-port {self.port}")
        command = command.replace(". .venv/bin/activate", ":")
        return f'export PATH="{Path(sys.executable).parent}:$PATH"; set -e; {command}'

    def shell(self, command: str, cwd: Path | None = None) -> str:
        """What the commands print; they must succeed."""
        result = subprocess.run(
            ["bash", "-c", self._adapt(command)],
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def python(self, program: str) -> None:
        """Run a program; it must succeed."""
        self.shell(f"python -c {shlex.quote(program)}")

    @contextmanager
    def running(self, commands: str, cwd: Path | None = None) -> Iterator[None]:
        """Run the last command in the foreground, as in a terminal of its own, and press Ctrl-C."""
        last = f"exec {commands.strip().splitlines()[-1]}"
        process = subprocess.Popen(
            ["bash", "-c", self._adapt(last)], cwd=cwd or self.folder, start_new_session=True
        )
        try:
            yield
            assert process.poll() is None, "it has ended by itself"
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
        assert code == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("readme"))
    site.shell(all_but_the_last(SERVE))
    return site


def test_make_has_the_two_commands() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in MAKE.splitlines():
        assert line.split()[1] in targets


def all_but_the_last(commands: str) -> str:
    return "\n".join(commands.splitlines()[:-1])


RECOVERED = """
import asyncio
from pathlib import Path
from tests.processes.running import ready, until
from pbft import Client

async def main() -> None:
    async with Client.connect("keys/mine/cluster.toml", "keys/mine/client-0.pem") as client:
        found = await until(client, range(4), ready)
        assert found[2]["stable_checkpoint"] > 256, "above all that it may have voted for"

asyncio.run(main())
"""


def test_the_tour_the_library_proofs_backups_and_lost_disks_work_as_printed(site: Site) -> None:
    with site.running(SERVE):
        printed = site.shell(TOUR)
        site.python(ASYNC)
        site.python(SYNC)
        site.shell("pbft bench --keys keys/mine --clients 1 --duration 1")  # a checkpoint is there
        proved = site.shell(PROOFS)
    assert "\nblue\nsucceeded\nput\n" in printed
    assert "color\tgreen" in printed
    assert printed.count("yes") == 8
    assert "20 seeds, 0 failures" in printed
    assert "\nvalue   " in proved
    assert proved.count("of 4 replicas") == 2
    assert "seen" in site.shell(all_but_the_last(LOSS))
    with site.running(LOSS):
        site.python(RECOVERED)
    site.shell(all_but_the_last(RESTORE))
    with site.running(RESTORE):
        assert site.shell("pbft kv --keys keys/new get color")


def test_an_application_of_ones_own_works_as_printed(site: Site) -> None:
    with site.running(TALLY):
        site.python(APPLICATION_CLIENT)
        again = textwrap.dedent("""
            from client import Refused
            from pbft import SyncClient
            with SyncClient.connect("keys/mine/cluster.toml", "keys/mine/client-0.pem") as client:
                try:
                    client.submit(b"tabs or spaces")
                except Refused as error:
                    assert "already" in str(error)
                else:
                    raise SystemExit("it was counted twice")
        """)
        site.python(again)


def test_the_ledger_works_as_printed(site: Site) -> None:
    with site.running(LEDGER):
        lines = site.shell(LEDGER_CLIENT).splitlines()
        with pytest.raises(AssertionError, match=r"ledger: the account alice has only 100"):
            site.shell(
                "python examples/ledger.py --keys keys/mine --client client-1 pay alice bank 101"
            )
    assert lines[0] == "-100"
    assert [line.split() for line in lines[1:]] == [["alice", "100"], ["bank", "-100"]]


def test_the_counter_works_as_its_file_says(site: Site) -> None:
    serve, *ask = re.findall(r"^    (\w+ .*)$", (ROOT / "examples/counter.py").read_text(), re.M)[
        :3
    ]
    site.shell("pbft keygen --out keys/counter")
    with site.running(serve):
        assert site.shell("\n".join(ask)) == "5\n5\n"


def test_four_machines_work_as_printed(tmp_path: Path) -> None:
    """Loopback addresses stand for the machines; each has a folder with what is copied there."""
    site = Site(tmp_path)
    site.shell(MACHINES.replace("10.0.0.", "127.0.0."))
    keys = tmp_path / "keys" / "prod"
    with _machines(site, keys, 0):
        site.shell("pbft kv --keys keys/prod put color blue")
        url = f"http://127.0.0.1:{site.port + 4}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            metrics = answer.read().decode()
    assert "pbft_last_executed 2.0" in metrics


@contextmanager
def _machines(site: Site, keys: Path, replica: int) -> Iterator[None]:
    """Run the replicas from this one on, each on its machine."""
    if replica == 4:
        yield
        return
    machine = site.folder / f"machine-{replica}"
    for name in ("cluster.toml", f"replica-{replica}.pem"):
        (machine / "keys/prod").mkdir(parents=True, exist_ok=True)
        (machine / "keys/prod" / name).write_bytes((keys / name).read_bytes())
        (machine / "keys/prod" / name).chmod(0o600)
    command = MACHINE.replace("--replica 0", f"--replica {replica}")
    command = command.replace(":9100", f":{site.port + 4 + replica}")
    with site.running(command, machine), _machines(site, keys, replica + 1):
        yield


def test_the_faulty_simulation_runs_as_printed(site: Site) -> None:
    assert "1 seed, 0 failures" in site.shell(FAULTY)
