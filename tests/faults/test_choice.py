"""What `--faulty` may name, and where."""

from collections import Counter

import pytest
from click.testing import CliRunner
from cores import Cores

from pbft.cli.main import main
from pbft.faults.modes import MODES, UnknownMode, check_modes
from pbft.faults.switch import Switch


@pytest.fixture
def keys(tmp_path):
    """Make a cluster: `keys("--lab")` gives the directory of its keys."""

    def make(*options):
        directory = tmp_path / "keys"
        result = CliRunner().invoke(main, ["keygen", "--out", str(directory), *options])
        assert result.exit_code == 0, result.output
        return str(directory)

    return make


def refusal(*arguments):
    """The one sentence with which a command line is refused."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    (line,) = result.output.splitlines()
    return line


@pytest.mark.parametrize("spec", ["nonsense", "lie+nonsense", "lie+", "", "LIE"])
def test_an_unknown_mode_is_refused_with_the_list_of_those_that_there_are(spec):
    with pytest.raises(UnknownMode) as raised:
        check_modes(spec)
    for mode in MODES.values():
        assert f"{mode.name} ({mode.summary}: {mode.rule})" in str(raised.value)


@pytest.mark.parametrize("command", ["node", "cluster"])
def test_a_command_refuses_an_unknown_mode_in_one_sentence(keys, tmp_path, command):
    choice = ("--replica", "0", "--faulty", "naughty")
    if command == "cluster":
        choice = ("--faulty", "0=naughty")
    place = ("--keys", keys("--lab"), "--data", str(tmp_path / "data"))
    line = refusal(command, *place, *choice)
    assert "there is no faulty mode 'naughty'" in line
    assert not (tmp_path / "data").exists()


def test_the_simulator_refuses_an_unknown_mode_in_one_sentence():
    line = refusal("simulate", "--seed", "1", "--faulty", "0=naughty")
    assert "there is no faulty mode 'naughty'" in line


@pytest.mark.parametrize("command", ["node", "cluster"])
def test_a_cluster_that_is_no_lab_refuses_every_mode_in_one_sentence(keys, tmp_path, command):
    place = ("--keys", keys(), "--data", str(tmp_path / "data"))
    choice = ("--replica", "0", "--faulty", "lie") if command == "node" else ("--faulty", "0=lie")
    assert "--lab" in refusal(command, *place, *choice)
    assert not (tmp_path / "data").exists()


class Wire:
    """A transport that counts what passes."""

    def __init__(self):
        self.passed = Counter()

    def send(self, to, packet):
        self.passed["send"] += 1

    def broadcast(self, packet):
        self.passed["broadcast"] += 1

    def reply(self, client, session, packet):
        self.passed["reply"] += 1

    def answer(self, client, nonce, packet):
        self.passed["answer"] += 1


def test_a_switched_mode_is_dormant_until_it_is_turned_on_and_again_once_it_is_off():
    honest, faulty = Wire(), Wire()
    switch = Switch(honest, faulty)
    packet = Cores().request().envelope
    for chosen, other in ((honest, faulty), (faulty, honest), (honest, faulty)):
        before = sum(other.passed.values())
        switch.send(1, packet)
        switch.broadcast(packet)
        switch.reply(b"client", 1, packet)
        switch.answer(b"client", 1, packet)
        assert sum(other.passed.values()) == before
        assert set(chosen.passed) == {"send", "broadcast", "reply", "answer"}
        switch.toggle()
