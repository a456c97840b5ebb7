"""The client library: sessions, f+1 matching signed replies, fast reads, typed key-value calls.

The public names are imported on first use: `Client`, `SyncClient`, `KV`, `SyncKV`, and the errors
of `client.errors`. The constructors for transactions are in `client.transactions`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.client import Client
    from client.errors import (
        ApplicationFailed,
        ClientError,
        DeadlineExceeded,
        LocalError,
        NotConnected,
        OutcomeUnknown,
        QueueFull,
        Refused,
        RemoteError,
    )
    from client.kv import KV, GetResult
    from client.proofs import Proven, verify_proof
    from client.sync import SyncClient, SyncKV

__all__ = [
    "KV",
    "ApplicationFailed",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "GetResult",
    "LocalError",
    "NotConnected",
    "OutcomeUnknown",
    "Proven",
    "QueueFull",
    "Refused",
    "RemoteError",
    "SyncClient",
    "SyncKV",
    "verify_proof",
]

_HOME = {
    "Client": "client.client",
    "GetResult": "client.kv",
    "KV": "client.kv",
    "Proven": "client.proofs",
    "SyncClient": "client.sync",
    "SyncKV": "client.sync",
    "verify_proof": "client.proofs",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'client' has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "client.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
