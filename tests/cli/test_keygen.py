import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pbft.cli.keygen import Plan, generate
from pbft.cli.main import main
from pbft.config import Parameters
from pbft.config_file import load_cluster
from pbft.config_keys import load_client_signer, load_replica_signer
from pbft.messages import MAX_REPLICAS


def keygen(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keygen", "--out", str(out), *arguments])


def test_every_key_matches_the_cluster_file(tmp_path: Path) -> None:
    out = tmp_path / "keys"
    result = keygen(out, "--replicas", "5", "--clients", "3")
    assert result.exit_code == 0, result.output
    config = load_cluster(out / "cluster.toml")
    for replica in range(5):
        load_replica_signer(config, out, replica)
    for name in ("client-0", "client-1", "client-2"):
        load_client_signer(config, out, name)
    assert len(list(out.iterdir())) == 9
    assert [replica.port for replica in config.replicas] == [7000, 7001, 7002, 7003, 7004]
    assert not config.lab


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    keygen(tmp_path / "keys")
    for path in (tmp_path / "keys").glob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("n", "f"), [(4, 1), (5, 1), (6, 1), (7, 2), (128, 42)])
def test_the_file_says_how_many_may_be_faulty(tmp_path: Path, n: int, f: int) -> None:
    result = keygen(tmp_path / "keys", "--replicas", str(n))
    assert f"{n} replicas, of which {f} may be faulty" in result.stdout


def test_options_reach_the_cluster_file(tmp_path: Path) -> None:
    out = tmp_path / "keys"
    hosts = ["--host", "a.example", "--host", "b.example", "--host", "10.0.0.3", "--host", "::1"]
    keygen(out, *hosts, "--base-port", "9000", "--lab", "--set", "request_timeout_ms=2500")
    config = load_cluster(out / "cluster.toml")
    assert [replica.host for replica in config.replicas] == ["a.example", "b.example", "10.0.0.3",
                                                             "::1"]  # fmt: skip
    assert config.replicas[3].port == 9003
    assert config.lab
    assert config.parameters == Parameters(request_timeout_ms=2500)


def test_many_replicas_get_a_window_whose_new_view_fits_into_a_frame(tmp_path: Path) -> None:
    keygen(tmp_path / "few", "--replicas", "7")
    assert load_cluster(tmp_path / "few" / "cluster.toml").parameters == Parameters()
    keygen(tmp_path / "many", "--replicas", "64", "--set", "request_timeout_ms=2500")
    expected = Parameters(window=70, checkpoint_interval=35, request_timeout_ms=2500)
    assert load_cluster(tmp_path / "many" / "cluster.toml").parameters == expected
    too_large = keygen(tmp_path / "keys", "--replicas", "64", "--set", "window=71")
    assert too_large.exit_code == 1
    assert "window must be at most 70 with 64 replicas" in too_large.stderr


def test_two_clusters_never_share_a_key_or_an_id(tmp_path: Path) -> None:
    one, two = (generate(Plan(), tmp_path / name) for name in ("one", "two"))
    assert one.cluster_id != two.cluster_id
    assert not one.client_keys() & two.client_keys()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--replicas", "3"), "PBFT needs at least 4 replicas to tolerate 1 fault (n >= 3f+1)"),
        (("--replicas", "-1"), "PBFT needs at least 4 replicas"),
        (("--replicas", str(MAX_REPLICAS + 1)), f"at most {MAX_REPLICAS} replicas"),
        (("--host", "a", "--host", "b"), "one --host for all replicas, or one for each"),
        (("--host", "a b"), "replica 0 has an invalid host name"),
        (("--base-port", "65533"), "replica 3 has port 65536"),
        (("--set", "window=100"), "window must be at least 2 * checkpoint_interval"),
    ],
)
def test_an_impossible_plan_is_refused_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    result = keygen(tmp_path / "keys", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("pbft: ")
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["colour=1", "window=x", "window=-1", "window", "window=²"])
def test_a_malformed_setting_is_a_usage_error(tmp_path: Path, setting: str) -> None:
    assert keygen(tmp_path / "keys", "--set", setting).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cluster.toml", "replica-3.pem", "client-1.pem"])
def test_nothing_is_overwritten_and_nothing_is_left_half(tmp_path: Path, name: str) -> None:
    out = tmp_path / "keys"
    out.mkdir()
    (out / name).write_text("precious")
    result = keygen(out)
    assert result.exit_code == 1
    assert f"{out / name} exists already" in result.stderr
    assert (out / name).read_text() == "precious"
    assert [path.name for path in tmp_path.rglob("*")] == ["keys", name]


def test_a_folder_with_other_files_is_added_to(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    assert keygen(tmp_path).exit_code == 0
    load_cluster(tmp_path / "cluster.toml")


def test_a_failure_while_moving_takes_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = os.link, 0

    def link(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    result = keygen(tmp_path / "keys")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert count == 4
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = keygen(tmp_path / "file" / "keys")
    assert result.exit_code == 1
    assert result.stderr.startswith("pbft: cannot write to ")
