"""`pbft inspect`: what is on the disk of a replica that is stopped."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from pbft.cli.errors import CliError
from pbft.codec import MalformedMessage, decode_body
from pbft.core.incarnation import starts_in
from pbft.core.records import TABLES, AmnesiaRecord, Restored, restore
from pbft.messages import Checkpoint, Envelope
from pbft.node.sessions import HEADERS, HEADERS_END
from pbft.storage.data_directory import data_files
from pbft.storage.directory_lock import check_not_in_use
from pbft.storage.examine import Examination, Findings, read_records
from pbft.storage.store_identity import Identity, show_identity

CONTENTS = {"log": "its votes", "state": "what it has executed"}


class FileReport(Struct):
    """One file: whose it is, how large, and whether it is whole."""

    file: str
    damage: str  # empty if there is none
    identity: Identity | None
    file_bytes: int
    used_bytes: int
    map_bytes: int
    free_pages: int
    records: dict[str, int]


class SlotReport(Struct):
    """What the log has on one sequence number; each vote is the view it was cast in."""

    seq: int
    pre_prepare: int | None
    prepare: int | None
    commit: int | None
    prepared: int | None  # the view of the prepared certificate
    committed: bool
    batches: int


class LogReport(Struct):
    """What the replica has promised, and what it knows."""

    view: int
    in_view_change: bool
    incarnations: dict[int, int]
    recovering_above: AmnesiaRecord | None
    slots: list[SlotReport]
    batches: int
    own_checkpoints: list[int]
    stable_checkpoint: int
    stable_digest: str
    stable_signers: list[int]
    evidence: int


class StateReport(Struct):
    """The state that was flushed last, or the one that is being fetched (`target`)."""

    seq: int
    time: int
    application_root: str
    sessions_root: str
    keys: int
    sessions: int
    target: int | None


class Report(Struct):
    """Everything; `log` and `state` are null where the file is damaged or of another format."""

    directory: str
    files: dict[str, FileReport]
    log: LogReport | None
    state: StateReport | None


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--all", "every_slot", is_flag=True, help="One line for each sequence number.")
@click.pass_context
def inspect(context: click.Context, directory: Path, as_json: bool, every_slot: bool) -> None:
    """Say what is in the data directory DIR of a replica that is stopped, and whether it is whole.

    Sequence numbers in a row that are equally far are shown in one line, unless --all is given.
    Needs no keys and writes nothing. Exit code 1 if something is damaged.
    """
    report = look_at(directory)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    else:
        click.echo("\n".join(_lines(report, every_slot)))
    if any(file.damage for file in report.files.values()):
        context.exit(1)


def look_at(directory: Path) -> Report:
    """Examine both files at once, and read the sound ones. Raises CliError, DirectoryInUse."""
    if not directory.is_dir():
        raise CliError(f"there is no folder {directory}")
    files = data_files(directory)
    if not any(file.exists() for file in files.values()):
        raise CliError(f"there is no data of a replica in {directory}")
    check_not_in_use(directory)
    going_on = {name: Examination(name, file) for name, file in files.items() if file.exists()}
    found = {name: examination.findings() for name, examination in going_on.items()}
    missing = Findings(damage="it is missing")
    reports = {name: _file(file, found.get(name, missing)) for name, file in files.items()}
    readable = {name: findings for name, findings in found.items() if _readable(reports[name])}
    return Report(
        str(directory),
        reports,
        _log(files["log"], reports["log"]) if "log" in readable else None,
        _state(files["state"], readable["state"]) if "state" in readable else None,
    )


def _file(file: Path, findings: Findings) -> FileReport:
    return FileReport(
        str(file),
        findings.damage,
        show_identity(findings.identity) if findings.identity else None,
        findings.file_bytes,
        findings.used_bytes,
        findings.map_bytes,
        findings.free_pages,
        findings.records,
    )


def _readable(report: FileReport) -> bool:
    return not report.damage and report.identity is not None and report.identity.replica is not None


def _log(file: Path, report: FileReport) -> LogReport | None:
    try:
        return _show_log(restore(read_records(file, *TABLES)))
    except (msgspec.DecodeError, MalformedMessage) as error:
        report.damage = f"a record of the log cannot be read: {error}"
        return None


def _show_log(restored: Restored) -> LogReport:
    stable = [_checkpoint(envelope) for envelope in restored.stable]
    return LogReport(
        view=restored.view.view,
        in_view_change=not restored.view.active,
        incarnations=starts_in(restored.incarnations),
        recovering_above=restored.amnesia,
        slots=_slots(restored),
        batches=sum(map(len, restored.batches.values())),
        own_checkpoints=sorted(restored.checkpoints),
        stable_checkpoint=stable[0].seq if stable else 0,
        stable_digest=stable[0].digest.hex() if stable else "",
        stable_signers=sorted(vote.replica for vote in stable),
        evidence=len(restored.evidence),
    )


def _slots(restored: Restored) -> list[SlotReport]:
    return [
        SlotReport(
            seq,
            _view(record.pre_prepare),
            _view(record.prepare),
            _view(record.commit),
            _view(record.proof.pre_prepare if record.proof else None),
            bool(record.certificate),
            len(restored.batches.get(seq, ())),
        )
        for seq, record in sorted(restored.slots.items())
    ]


def _view(vote: Envelope | None) -> int | None:
    return None if vote is None else getattr(decode_body(vote.body), "view", None)


def _checkpoint(envelope: Envelope) -> Checkpoint:
    body = decode_body(envelope.body)
    assert isinstance(body, Checkpoint)
    return body


def _state(file: Path, findings: Findings) -> StateReport:
    sessions = sum(HEADERS <= key < HEADERS_END for _, key, _ in read_records(file, "sessions"))
    state, target = findings.state, findings.target
    return StateReport(
        state.seq if state else 0,
        state.time if state else 0,
        state.application_root if state else "",
        state.sessions_root if state else "",
        findings.records["application"],
        sessions,
        target.seq if target else None,
    )


# --- for people -----------------------------------------------------------------------------------


def _lines(report: Report, every_slot: bool) -> list[str]:
    lines = [f"data directory    {report.directory}"]
    for name, file in report.files.items():
        lines += ["", f"{name} ({CONTENTS[name]})", *_file_lines(file)]
        if name == "log" and report.log:
            lines += _log_lines(report.log, every_slot)
        if name == "state" and report.state:
            lines += _state_lines(report.state)
    return lines


def _file_lines(file: FileReport) -> list[str]:
    lines = [f"  integrity       {'damaged: ' + file.damage if file.damage else 'sound'}"]
    if file.identity:
        whose = f"replica {file.identity.replica} of cluster {(file.identity.cluster or '')[:16]}"
        known = file.identity.replica is not None
        lines.append(f"  identity        {whose if known else 'unknown'}")
        lines.append(f"  format          {file.identity.format}")
    if file.file_bytes:
        size = f"{file.file_bytes} bytes, {file.free_pages} pages free, bound {file.map_bytes}"
        lines.append(f"  size            {size}")
    return lines


def _log_lines(log: LogReport, every_slot: bool) -> list[str]:
    changing = " (in a view change)" if log.in_view_change else ""
    goal = log.recovering_above
    forgotten = f"votes up to seq {goal.above_seq}, view {goal.above_view + 1}" if goal else "no"
    starts = ", ".join(f"{replica}: {number}" for replica, number in log.incarnations.items())
    seqs = f"{log.slots[0].seq}..{log.slots[-1].seq}" if log.slots else "none"
    signers = ", ".join(map(str, log.stable_signers))
    return [
        f"  view            {log.view}{changing}",
        f"  starts seen     {starts or 'none'}",
        f"  has forgotten   {forgotten}",
        f"  stable          {log.stable_checkpoint}, signed by {signers or 'nobody'}",
        f"  own checkpoints {', '.join(map(str, log.own_checkpoints)) or 'none'}",
        f"  slots           {seqs}, {log.batches} batches",
        *_slot_lines(log.slots, every_slot),
        f"  evidence        {log.evidence}",
    ]


def _slot_lines(slots: list[SlotReport], every_slot: bool) -> Iterator[str]:
    """A line for each run of sequence numbers that are equally far."""
    numbered = [(slot.seq, 0 if every_slot else number, slot) for number, slot in enumerate(slots)]
    for (_, phase), run in groupby(numbered, lambda each: (each[0] - each[1], _phase(each[2]))):
        seqs = [seq for seq, _, _ in run]
        where = f"{seqs[0]}..{seqs[-1]}" if len(seqs) > 1 else f"{seqs[0]}"
        yield f"    {where:>16}  {phase}"


def _phase(slot: SlotReport) -> str:
    votes = {
        "pre-prepare": slot.pre_prepare,
        "prepare": slot.prepare,
        "commit": slot.commit,
        "prepared": slot.prepared,
    }
    cast = [f"{name} in view {view}" for name, view in votes.items() if view is not None]
    return ", ".join([*cast, *["committed"] * slot.committed])


def _state_lines(state: StateReport) -> list[str]:
    lines = [
        f"  after           {state.seq}, at {state.time} µs",
        f"  application     {state.keys} keys, root {state.application_root[:16]}",
        f"  sessions        {state.sessions}, root {state.sessions_root[:16]}",
    ]
    if state.target is not None:
        lines.append(f"  being fetched   the state after {state.target}")
    return lines
