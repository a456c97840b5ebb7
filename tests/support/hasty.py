"""A bug that two checkers must catch: what is sent before the disk has it."""

from typing import Any

import pytest
from msgspec.structs import replace

from pbft.node.turn import Node


def sent_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """Let a turn send first, and write down afterwards what it has promised (R39)."""
    persist = Node._persist

    def hasty(self: Node, outputs: Any) -> None:
        for output in outputs:
            for send in output.sends:
                self._send(send)
        persist(self, outputs)
        outputs[:] = [replace(output, sends=()) for output in outputs]

    patch.setattr(Node, "_persist", hasty)
