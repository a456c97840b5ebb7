"""`make bench-checkpoints`: what a checkpoint costs against how much is stored.

For each number of stored keys a state of its own lies on a real disk. The runs alternate between
the sizes, so that what disturbs the machine for a while disturbs all alike; the table shows medians.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import machine
import page
from msgspec import Struct
from rich.console import Console

from pbft.storage import state_store, state_trees
from pbft.storage.database import Transaction
from pbft.storage.lmdb_database import LmdbDatabase
from pbft.storage.merkle_trie import MerkleTrie
from pbft.storage.state_store import StateStore

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CHANGES = (1_000, 10_000)
VALUE_BYTES = 100
CHUNK = 50_000  # keys per flush while a state is filled
MAP_BYTES = 1 << 34


class Cost(Struct, frozen=True):
    """One flush, in seconds: records written, tree updated, the whole of it; then nodes written."""

    entries: float
    tree: float
    whole: float
    nodes: int


class Stopwatch(MerkleTrie):
    """The application's tree; it notes when its update begins and ends."""

    began = ended = 0.0

    def update(self, transaction: Transaction, changed: Mapping[bytes, bytes | None]) -> None:
        """As MerkleTrie, timed."""
        self.began = time.perf_counter()
        super().update(transaction, changed)
        self.ended = time.perf_counter()
