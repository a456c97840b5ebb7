"""`pbft verify`: check a proof or a backup offline."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from client.proofs import Proven, verify_proof
from pbft.backups import BackupReader, is_backup
from pbft.cli.errors import CliError
from pbft.cli.kv_text import MAX_NUMBER, Text
from pbft.config import ClusterConfig
from pbft.config_file import load_cluster
from pbft.proofs import KEY_VALUE, MAX_PROOF_BYTES, InvalidProof, decode_proof

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--cluster",
    default="keys/cluster.toml",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The cluster's public configuration: whose signatures count.",
)
@click.option("--min-seq", default=0, type=click.IntRange(0, MAX_NUMBER), help="Not from before.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--hex", "hexadecimal", is_flag=True, help="Show key and value as digits.")
def verify(file: Path, cluster: Path, min_seq: int, as_json: bool, hexadecimal: bool) -> None:
    """Check FILE, from `pbft kv get --proof` or `pbft backup`, without asking any replica.

    Prints what it proves: the key, its value or that it is absent (of a backup, which is read
    whole, how many entries it has), the sequence number and agreed time of the state that it speaks
    for (later changes it cannot know), and who has signed. Exit code 1 if it does not hold, or is
    from before --min-seq.
    """
    config = load_cluster(cluster)
    with file.open("rb") as opened:
        if is_backup(opened.read(32)):
            opened.seek(0)
            _verify_backup(opened, config, min_seq, as_json)
            return
    proven = _proven(file, config, min_seq)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_as_json(proven))))
    else:
        for line in _lines(proven, config, Text(hexadecimal=hexadecimal)):
            click.echo(line)


def _proven(file: Path, config: ClusterConfig, min_seq: int) -> Proven:
    with file.open("rb") as opened:
        raw = opened.read(MAX_PROOF_BYTES + 1)
    try:
        return verify_proof(decode_proof(raw), config, min_seq=min_seq)
    except InvalidProof as error:
        raise CliError(f"{file} proves nothing: {error}") from None


def _verify_backup(file: BinaryIO, config: ClusterConfig, min_seq: int, as_json: bool) -> None:
    try:
        reader = BackupReader(file, config)
        entries = sum(len(bucket.entries) for bucket in reader.buckets())
        summary = reader.header.summary
        if summary.seq < min_seq:
            raise InvalidProof(f"it holds the state after {summary.seq}, not {min_seq}")
    except InvalidProof as error:
        raise CliError(f"{file.name} proves nothing: {error}") from None
    if as_json:
        report = {
            "kind": "backup",
            "cluster_id": reader.header.cluster_id.hex(),
            "entries": entries,
            "application_root": summary.application_root.hex(),
            "seq": summary.seq,
            "time": summary.time,
            "signers": sorted(reader.signers),
        }
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
        return
    click.echo(f"backup  of {entries} entries, root {summary.application_root.hex()[:16]}")
    click.echo(_state_line(summary.seq, summary.time))
    click.echo(f"signed  by {show_signers(reader.signers, config)}")


def _state_line(seq: int, time: int) -> str:
    return f"state   after {seq}, {show_time(time)}"


def show_time(time: int) -> str:
    """An agreed time (µs) for people."""
    try:
        return (EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except OverflowError:
        return f"{time} µs after 1970"


def show_signers(signers: tuple[int, ...], config: ClusterConfig) -> str:
    """Who has signed."""
    names = ", ".join(map(str, sorted(signers)))
    return f"{len(signers)} of {len(config.replicas)} replicas: {names}"


def _lines(proven: Proven, config: ClusterConfig, text: Text) -> list[bytes]:
    absent = proven.value is None
    lines = [
        b"key     " + text.show(proven.key),
        b"value   " + (b"(absent)" if proven.value is None else text.show(proven.value)),
    ]
    if proven.proof.subject == KEY_VALUE and not absent:
        numbers = proven.create_revision, proven.mod_revision, proven.version
        lines.append(b"created at revision %d, modified at %d, version %d" % numbers)
    state = _state_line(proven.seq, proven.time)
    signed = f"signed  by {show_signers(proven.signers, config)}"
    return [*lines, state.encode(), signed.encode()]


def _as_json(proven: Proven) -> dict[str, Any]:
    return {
        "kind": "key-value" if proven.proof.subject == KEY_VALUE else "map",
        "cluster_id": proven.proof.cluster_id.hex(),
        "key_hex": proven.key.hex(),
        "present": proven.value is not None,
        "value_hex": None if proven.value is None else proven.value.hex(),
        "create_revision": proven.create_revision,
        "mod_revision": proven.mod_revision,
        "version": proven.version,
        "seq": proven.seq,
        "time": proven.time,
        "signers": sorted(proven.signers),
    }
