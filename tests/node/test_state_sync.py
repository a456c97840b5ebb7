"""Serving checkpoints to replicas that are behind: within a budget per peer (R25)."""

from hashlib import sha256
from pathlib import Path

import pytest
from cores import Cores

from pbft.messages import FetchState
from pbft.node.divergence import show
from pbft.node.state_sync import SERVED_BURST_BYTES, PinnedCheckpoints
from pbft.storage.memory_database import MemoryDatabase
from pbft.storage.pinned_state import PinnedState
from pbft.storage.state_store import StateStore
from pbft.storage.state_trees import STATE_TABLES


class Sent(list):
    """A transport that notes to whom something goes."""

    def send(self, to: int, _packet: object) -> None:
        self.append(to)


def filled(size: int) -> StateStore:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    store.begin_batch(1, 10)
    store.application.put(b"k", bytes(size))
    store.flush()
    return store


@pytest.mark.rule("R25")
@pytest.mark.parametrize("size", [0, SERVED_BURST_BYTES // 8])
def test_serving_state_has_a_budget_per_peer_that_counts_paths_and_bytes(size: int) -> None:
    sent = Sent()
    pins = PinnedCheckpoints(Cores().contexts[0], sent)
    pins.pin(filled(size).pin())
    paths = (b"\x00",) if size else tuple(bytes([0, n // 16, n % 16]) for n in range(64))
    fetch = FetchState(1, 1, paths)
    served = [pins.serve(fetch, 0) for _ in range(1000)].count(True)
    assert 0 < served < 20
    assert pins.serve(FetchState(2, 1, (b"\x00",)), 0)
    assert pins.serve(fetch, 10_000_000)
    assert sent == [1] * served + [2, 1]


def state_of(value: bytes, keys: int) -> PinnedState:
    store = StateStore(MemoryDatabase(STATE_TABLES))
    store.begin_batch(1, 10)
    for number in range(keys):
        store.application.put(b"%d" % number, b"same")
    store.application.put(b"7", value)
    store.flush()
    return store.pin()


@pytest.mark.rule("R22")
@pytest.mark.parametrize("keys", [10, 5000])
def test_replicas_that_halt_show_in_which_buckets_and_keys_their_states_differ(
    tmp_path: Path, keys: int
) -> None:
    shown, listings = [], []
    for value in (b"one", b"other"):
        folder = tmp_path / value.decode()
        folder.mkdir()
        shown.append([dict(note.fields) for note in show(state_of(value, keys), 1, folder)])
        assert shown[-1][0]["file"] == str(folder / "divergence-1.txt")
        assert (folder / "divergence-1.txt").stat().st_mode & 0o077 == 0
        listings.append((folder / "divergence-1.txt").read_text().splitlines())
    differing = [pair for pair in zip(*listings, strict=True) if pair[0] != pair[1]]
    assert len(listings[0]) == keys
    [(one, other)] = [(one.split(), other.split()) for one, other in differing]
    assert one[:2] == other[:2] == [one[0], "b'7'"]
    path = one[0].removeprefix("application/")
    assert sha256(b"7").hexdigest().startswith(path)
    assert bool(path) is (keys > 32)
    (application, sessions), (others, same) = shown
    assert sessions["parts"] == same["parts"]
    parts = zip(application["parts"].split(","), others["parts"].split(","), strict=True)
    assert [one == two for one, two in parts].count(False) == 1


@pytest.mark.rule("R22")
def test_a_replica_that_cannot_write_down_where_it_differs_says_why(tmp_path: Path) -> None:
    [note] = show(state_of(b"one", 10), 1, tmp_path / "nowhere")
    assert "No such file" in str(dict(note.fields)["missing"])
    [note] = show(None, 1, tmp_path)
    assert dict(note.fields) == {"seq": 1, "missing": "this state is not kept any more"}
    assert list(tmp_path.iterdir()) == []
