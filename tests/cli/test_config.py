import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from crypto.keys import KeyFileError, save_seed
from crypto.signing import Ed25519Signer
from pbft.config import ClientInfo, ClusterConfig, ConfigError, Parameters, ReplicaInfo
from pbft.config_check import check
from pbft.config_file import (
    MAX_FILE_BYTES,
    PARAMETER_NOTES,
    load_cluster,
    save_cluster,
    to_toml,
)
from pbft.config_keys import load_client_signer, load_replica_signer

PUBLIC = [Ed25519Signer(bytes([i]) * 32).public_key for i in range(64)]


def a_config(n: int = 4, clients: int = 2) -> ClusterConfig:
    return ClusterConfig(
        replicas=tuple(ReplicaInfo(i, "127.0.0.1", 7000 + i, PUBLIC[i]) for i in range(n)),
        clients=tuple(ClientInfo(f"client-{i}", PUBLIC[20 + i]) for i in range(clients)),
    )


def with_replica(config: ClusterConfig, index: int, **changes: object) -> ClusterConfig:
    replicas = list(config.replicas)
    replicas[index] = replace(replicas[index], **changes)
    return replace(config, replicas=tuple(replicas))


hosts = st.from_regex(r"[A-Za-z0-9:](\.?[A-Za-z0-9_:-]){0,20}\.?", fullmatch=True)
parameters = st.builds(
    Parameters,
    checkpoint_interval=st.integers(1, 256),
    window=st.just(512),
    pipeline_depth=st.integers(1, 512),
    view_timeout_ms=st.integers(1, 60_000),
    heartbeat_timeout_ms=st.integers(101, 2**31 - 1),
    fairness_batches=st.integers(1, 2**31 - 1),
)
configs = st.builds(
    lambda names, parameters, lab, clients: ClusterConfig(
        replicas=tuple(ReplicaInfo(i, h, 1 + i, PUBLIC[i]) for i, h in enumerate(names)),
        clients=a_config(clients=clients).clients,
        parameters=parameters,
        lab=lab,
    ),
    st.lists(hosts, min_size=4, max_size=20),
    parameters,
    st.booleans(),
    st.integers(0, 20),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@settings(max_examples=50, deadline=None)
@given(config=configs)
def test_what_is_saved_is_loaded_again(folder: Path, config: ClusterConfig) -> None:
    path = folder / "cluster.toml"
    path.unlink(missing_ok=True)
    save_cluster(config, path)
    loaded = load_cluster(path)
    assert loaded == config
    assert loaded.cluster_id == config.cluster_id


def test_every_parameter_is_written_with_its_unit() -> None:
    assert tuple(PARAMETER_NOTES) == Parameters.__struct_fields__


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        save_cluster(a_config(), path)
    assert path.read_text() == "precious"


@pytest.mark.rule("R7")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lab = false", "lab = true"),
        ("port = 7002", "port = 7009"),
        ("request_timeout_ms = 1000", "request_timeout_ms = 1001"),
        (PUBLIC[0].hex(), PUBLIC[30].hex()),
        ('"client-1"', '"client-7"'),
    ],
)
def test_an_edited_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = to_toml(a_config())
    assert text.count(old) == 1
    with pytest.raises(ConfigError, match=r"was edited: its id is .* but its contents give"):
        load(tmp_path, text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("f = 1 ", "f = 2 ", "says f = 2, but its replicas tolerate f = 1"),
        ("port = 7002", "port = true", "Expected `int`, got `bool`"),
        ("port = 7002", "port = 7002.0", "Expected `int`, got `float`"),
        ("port = 7002", 'port = "7002"', "Expected `int`, got `str`"),
        ("port = 7002", "port = 1979-05-27", "Expected `int`, got `date`"),
        ("port = 7002", "port = 0", "replica 2 has port 0"),
        ("port = 7002", "", "missing required field `port`"),
        ("port = 7002", "port = 7002\ncolor = 1", "unknown field `color`"),
        ("port = 7002", "port = 7001", "the address 127.0.0.1:7001 appears twice"),
        ("id = 2", "id = 1", "each once and in order, but number 2 in the list has id 1"),
        ("id = 2", f"id = {2**70}", "each once and in order"),
        ('"127.0.0.1"\nport = 7002', '""\nport = 7002', "replica 2 has an invalid host"),
        ('"127.0.0.1"\nport = 7002', '"a b"\nport = 7002', "replica 2 has an invalid host"),
        ('"client-1"', '"client-0"', "the client name client-0 appears twice"),
        ('"client-1"', '"../client"', "client number 1 has an invalid name"),
        (PUBLIC[1].hex(), PUBLIC[0].hex(), f"the public key {PUBLIC[0].hex()} appears twice"),
        (PUBLIC[20].hex(), PUBLIC[0].hex(), f"the public key {PUBLIC[0].hex()} appears twice"),
        (PUBLIC[1].hex(), "00" * 32, "the public key of replica 1 is invalid"),
        (PUBLIC[21].hex(), "01" + "00" * 31, "the public key of client client-1 is invalid"),
        (PUBLIC[1].hex(), "12", "the public key of replica 1 is not 64 hexadecimal digits"),
        (PUBLIC[1].hex(), "x" * 64, "the public key of replica 1 is not 64 hexadecimal digits"),
        ("window = 256", "window = 127", "window must be at least 2 [*] checkpoint_interval"),
        ("window = 256", "window = 4097", "window must be between 1 and 4096, but is 4097"),
        ("window = 256", f"window = {2**70}", "window must be between 1 and 4096"),
        ("view_timeout_ms = 1000", "view_timeout_ms = 0", "view_timeout_ms must be between 1 and"),
        ("pipeline_depth = 4", "pipeline_depth = -4", "pipeline_depth must be between 1 and"),
        (
            "max_state_bytes = 4294967296",
            "max_state_bytes = 1000",
            "max_operation_bytes must not be above max_state_bytes",
        ),
        (
            "max_state_bytes = 4294967296",
            "max_state_bytes = 1099511627777",
            "max_state_bytes must be between 1 and 1099511627776",
        ),
        ("pipeline_depth = 4", "pipeline_depth = 513", "pipeline_depth must not be above window"),
        ("heartbeat_timeout_ms = 700", "heartbeat_timeout_ms = 100", "must be above heartbeat_int"),
        ("[cluster]", "[cluster", "not valid TOML"),
        ("[cluster]", "a = " + "[" * 100_000, "not valid TOML: nested too deeply"),
        ("[cluster]", "\x00", "not valid TOML"),
        ("[cluster]", "#" * (MAX_FILE_BYTES + 1), f"larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    text = to_toml(a_config())
    assert text.count(old) == 1
    with pytest.raises(ConfigError, match=reason) as caught:
        load(tmp_path, text.replace(old, new))
    assert "\n" not in str(caught.value)


def load(folder: Path, text: str) -> ClusterConfig:
    path = folder / "cluster.toml"
    path.write_text(text)
    return load_cluster(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_cluster(tmp_path / "cluster.toml")


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file|cannot be read"):
        load_cluster(tmp_path / name)


def test_fewer_than_four_replicas_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 4 replicas to tolerate 1 fault \(n >= 3f"):
        check(a_config(n=3))


@pytest.mark.rule("R10")
def test_a_window_of_twice_the_checkpoint_interval_is_the_smallest() -> None:
    check(replace(a_config(), parameters=Parameters(checkpoint_interval=200, window=400)))
    with pytest.raises(ConfigError, match="window"):
        check(replace(a_config(), parameters=Parameters(checkpoint_interval=200, window=399)))


@pytest.mark.rule("R25")
@pytest.mark.parametrize(("n", "most"), [(4, 14563), (13, 1618), (31, 297), (64, 70)])
def test_a_window_is_small_enough_for_a_new_view_to_fit_into_a_frame(n: int, most: int) -> None:
    for window, fits in ((min(most, 4096), True), (most + 1, False)):
        parameters = Parameters(checkpoint_interval=8, window=window, pipeline_depth=4)
        config = replace(a_config(n=n, clients=0), parameters=parameters)
        if fits:
            check(config)
        else:
            with pytest.raises(ConfigError, match=r"window must be (at most|between)"):
                check(config)


@pytest.mark.parametrize("name", ["max_batch_bytes", "max_result_bytes"])
def test_what_would_not_fit_into_a_frame_is_refused(name: str) -> None:
    parameters = replace(Parameters(), **{name: 8 * 1024 * 1024 + 1})
    with pytest.raises(ConfigError, match=f"{name} must be at most 8388608"):
        check(replace(a_config(), parameters=parameters))


@pytest.mark.parametrize("host", ["a..b", ".a", "-a", "a b", ""])
def test_a_host_that_cannot_be_looked_up_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="invalid host"):
        check(with_replica(a_config(), 1, host=host))


def test_addresses_are_compared_without_case() -> None:
    config = with_replica(a_config(), 0, host="Alpha", port=1)
    with pytest.raises(ConfigError, match="the address alpha:1 appears twice"):
        check(with_replica(config, 1, host="alpha", port=1))


def test_comments_and_units_do_not_change_the_meaning() -> None:
    tables = tomllib.loads(to_toml(a_config()))
    assert tables["parameters"]["checkpoint_interval"] == Parameters().checkpoint_interval
    assert tables["cluster"]["id"] == a_config().cluster_id.hex()


def save_keys(folder: Path) -> None:
    save_seed(folder / "replica-1.pem", bytes([1]) * 32)
    save_seed(folder / "client-0.pem", bytes([20]) * 32)


def test_the_signer_of_a_member_is_loaded(tmp_path: Path) -> None:
    save_keys(tmp_path)
    assert load_replica_signer(a_config(), tmp_path, 1).public_key == PUBLIC[1]
    assert load_client_signer(a_config(), tmp_path, "client-0").public_key == PUBLIC[20]


def test_a_key_of_another_cluster_is_refused(tmp_path: Path) -> None:
    save_keys(tmp_path)
    other = with_replica(a_config(), 1, public_key=PUBLIC[35])
    with pytest.raises(ConfigError, match=r"is not the key that cluster\.toml has for replica 1"):
        load_replica_signer(other, tmp_path, 1)


def test_strangers_have_no_signer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no replica 4 in cluster\.toml, only 0 to 3"):
        load_replica_signer(a_config(), tmp_path, 4)
    with pytest.raises(ConfigError, match="no replica -1"):
        load_replica_signer(a_config(), tmp_path, -1)
    with pytest.raises(ConfigError, match=r"no client '\.\./root'"):
        load_client_signer(a_config(), tmp_path, "../root")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    save_keys(tmp_path)
    os.chmod(tmp_path / "replica-1.pem", 0o640)
    with pytest.raises(KeyFileError, match="others may access"):
        load_replica_signer(a_config(), tmp_path, 1)
