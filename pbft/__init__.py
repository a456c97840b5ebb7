"""Byzantine fault tolerant replication: PBFT as a node, a client library and a test bench.

The public face, imported on first use: `Client`, `SyncClient`, `KV`, `SyncKV` to talk to a cluster;
`StateMachine`, `State`, `ReadableState`, `Context`, `Refused` to write an application.

The packages `crypto`, `network` and `client` belong to this distribution, and stand beside this
folder. Their names are likely ones (a script of one's own called client.py is enough), so they are
bound from there before anything else is imported, whatever stands first on `sys.path`.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.client import Client
    from client.kv import KV
    from client.sync import SyncClient, SyncKV
    from pbft.apps.state_machine import Context, ReadableState, Refused, State, StateMachine

__all__ = [
    "KV",
    "Client",
    "Context",
    "ReadableState",
    "Refused",
    "State",
    "StateMachine",
    "SyncClient",
    "SyncKV",
]

_HOME = {
    "Client": "client.client",
    "KV": "client.kv",
    "SyncClient": "client.sync",
    "SyncKV": "client.sync",
    "StateMachine": "pbft.apps.state_machine",
    "State": "pbft.apps.state_machine",
    "ReadableState": "pbft.apps.state_machine",
    "Context": "pbft.apps.state_machine",
    "Refused": "pbft.apps.state_machine",
}


def _bind_sibling(name: str, folder: Path) -> None:
    """Make `import <name>` mean the package in `folder`. Raises ImportError if it cannot."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        _refuse_stranger(name, getattr(loaded, "__file__", None), folder)
        return
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"pbft is not installed whole: {folder} has no package {name!r}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _refuse_stranger(name: str, origin: str | None, folder: Path) -> None:
    if origin is None or Path(origin).resolve() != (folder / name / "__init__.py").resolve():
        raise ImportError(
            f"pbft needs its own package {name!r}, but another module of that name is already "
            f"loaded from {origin}: import pbft before it, or rename it"
        )


for _name in ("crypto", "network", "client"):
    _bind_sibling(_name, Path(__file__).resolve().parent.parent)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'pbft' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
