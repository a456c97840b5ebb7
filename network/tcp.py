"""Authenticated connections over TCP, with synchronous callbacks: the public face of this package.

A server calls `listen`, whoever wants to stay connected to one makes a `Dialler`; both tell a
`ConnectionHandler` about connections whose other end has proved which public key it holds.
"""

from network.connection import Connection, ConnectionHandler
from network.dialler import Dialler
from network.limits import Counters, Limits
from network.listener import Listener, listen

__all__ = [
    "Connection",
    "ConnectionHandler",
    "Counters",
    "Dialler",
    "Limits",
    "Listener",
    "listen",
]
