"""From a directory of keys and a directory of data to a running replica."""

import asyncio
import contextlib
import gc
import importlib
import logging
import signal
from collections import Counter
from pathlib import Path

from msgspec import Struct

from crypto.signing import Ed25519Signer, Ed25519Verifier
from pbft.apps.state_machine import StateMachine
from pbft.config import ClusterConfig
from pbft.core.context import Context
from pbft.core.output import Note
from pbft.node.log_store import LogStore
from pbft.node.logs import log
from pbft.node.ports import Transport
from pbft.node.scrubber import Scrubber
from pbft.node.shell import Shell, SystemClock
from pbft.node.transport import TcpTransport
from pbft.node.turn import Node
from pbft.storage.data_directory import DataDirectory
from pbft.storage.state_store import StateStore

GARBAGE_THRESHOLDS = (5_000, 20, 50)
"""Python's defaults look for garbage seven times as often, which costs 3 % of a busy replica."""

ALARMING = ("state-diverged", "memory-lost")

DEFAULT_APPLICATION = "pbft.apps.kv:KeyValueStore"


class ApplicationNotFound(Exception):
    """`--app` names nothing that can be run; the text says what is wrong."""


class Wrapper(Struct, frozen=True):
    """What stands between a node and its network: nothing, or a faulty-node mode."""

    def wrap(self, _context: Context, transport: Transport, _counters: Counter[str]) -> Transport:
        """The transport that the node gets."""
        return transport


def load_application(name: str) -> StateMachine:
    """An instance of `module:Class`. Raises ApplicationNotFound."""
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ApplicationNotFound(f"the application {name} cannot be loaded: {error}") from None
    if not (isinstance(found, type) and issubclass(found, StateMachine)):
        raise ApplicationNotFound(
            f"the application {name} is not a class derived from StateMachine"
        )
    return found()


async def serve(
    config: ClusterConfig,
    replica: int,
    signer: Ed25519Signer,
    data: DataDirectory,
    machine: StateMachine,
    wrapper: Wrapper,
    metrics: tuple[str, int] | None,
) -> str | None:
    """Run until SIGTERM or SIGINT; the reason if the replica had to stop by itself."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str | None] = loop.create_future()

    def stop(reason: str | None) -> None:
        if not stopped.done():
            stopped.set_result(reason)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, None)
    counters: Counter[str] = Counter()
    context = Context(config, replica, signer)
    transport = TcpTransport(counters)
    shell = Shell(context, signer, transport, counters, stop)
    node = Node(
        context,
        machine,
        LogStore(data.log),
        StateStore(data.state),
        SystemClock(),
        wrapper.wrap(context, transport, counters),
        Ed25519Verifier(),
        lambda note: _log_note(replica, note),
        counters,
        data.path,
    )
    scrubber = Scrubber(data)
    node.scrubbed = scrubber.progress
    if data.discarded:
        log("state-discarded", level=logging.ERROR, replica=replica, reason=data.discarded)
    with contextlib.ExitStack() as stack:
        if metrics is not None:
            from pbft.node.metrics import serve_metrics  # it takes a tenth of a restart

            stack.enter_context(serve_metrics(node, *metrics))
        await shell.start(node)
        shell.between_turns(scrubber.work)
        address = config.replicas[replica]
        log("replica-started", replica=replica, address=f"{address.host}:{address.port}")
        reason = await stopped
        await shell.stop()
    log("replica-stopped", replica=replica, reason=reason or "asked to")
    return reason


def _log_note(replica: int, note: Note) -> None:
    level = logging.ERROR if note.event in ALARMING else logging.INFO
    log(note.event, level=level, replica=replica, **dict(note.fields))


def data_path(base: Path, replica: int) -> Path:
    """Where `pbft cluster` keeps one replica's data."""
    return base / f"replica-{replica}"
