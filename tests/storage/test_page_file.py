"""Reading an LMDB file without LMDB: all that is there, and no page that is not as it says."""

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb
import pytest

from pbft.storage.page_file import Damaged, PageFile

PAGE = 4096
Tables = dict[str, dict[bytes, bytes]]


def random_value(chance: Random) -> bytes:
    sizes = [5000, 100_000] if chance.random() < 0.05 else [0, 5, 100, 2000]
    return chance.randbytes(chance.choice(sizes))


def fill(path: Path, seed: int) -> Tables:
    """A file with a history: tables that grew and shrank, while snapshots were open."""
    chance, content = Random(seed), Tables(a={}, b={}, c={})
    environment = lmdb.open(str(path), map_size=1 << 30, max_dbs=3, sync=False)
    with environment.begin(write=True) as transaction:
        handles = {n: environment.open_db(n.encode(), txn=transaction) for n in content}
    snapshots: list[lmdb.Transaction] = []
    for step in range(60):
        with environment.begin(write=True) as transaction:
            for _ in range(chance.choice([0, 1, 10, 300])):
                table = chance.choice("ab")
                key = chance.randbytes(chance.choice([1, 2, 2, 2, 20, 511]))
                if chance.random() < (0.3 if step % 20 > 10 else 0.7):
                    content[table][key] = random_value(chance)
                    transaction.put(key, content[table][key], db=handles[table])
                elif content[table]:
                    key = chance.choice(list(content[table]))
                    transaction.delete(key, db=handles[table])
                    del content[table][key]
        if chance.random() < 0.2:
            snapshots = [*snapshots, environment.begin()][-3:]
    environment.close()
    return content


def read_all(path: Path) -> tuple[Tables, int]:
    with PageFile(path / "data.mdb") as pages:
        tables = {name: dict(pages.records(tree)) for name, tree in pages.tables().items()}
        return tables, pages.free_pages()


@pytest.mark.parametrize("seed", range(5))
def test_it_reads_what_lmdb_has_written(tmp_path: Path, seed: int) -> None:
    content = fill(tmp_path / "e", seed)
    tables, free = read_all(tmp_path / "e")
    assert tables == content
    assert free > 0


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example")
    fill(path / "e", 1)
    return path / "e"


def pages_of_kind(data: bytearray, kind: int) -> list[int]:
    """Where the pages of one kind begin that are in use."""
    used = bytearray(len(data) // PAGE)
    for start in range(2 * PAGE, len(data), PAGE):
        number, _, found = struct.unpack_from("=QHH", data, start)
        used[start // PAGE] = number == start // PAGE and found == kind
    return [number * PAGE for number in range(len(used)) if used[number]]


Spoil = Callable[[bytearray], None]


def every_page(kind: int, change: Callable[[bytearray, int], None]) -> Spoil:
    """Change all pages of a kind: some are in use."""

    def spoil(data: bytearray) -> None:
        for start in pages_of_kind(data, kind):
            change(data, start)

    return spoil


def put(at: int, *values: int, code: str = "H") -> Callable[[bytearray, int], None]:
    return lambda data, start: struct.pack_into(f"={len(values)}{code}", data, start + at, *values)


def zero(data: bytearray, start: int) -> None:
    data[start : start + PAGE] = bytes(PAGE)


def swap_entries(data: bytearray, start: int) -> None:
    first, second = struct.unpack_from("=HH", data, start + 16)
    if struct.unpack_from("=H", data, start + 12)[0] >= 20:
        struct.pack_into("=HH", data, start + 16, second, first)


def lose_an_entry(data: bytearray, start: int) -> None:
    (lower,) = struct.unpack_from("=H", data, start + 12)
    struct.pack_into("=H", data, start + 12, lower - 2)


def newest(data: bytearray) -> int:
    return max((0, PAGE), key=lambda at: struct.unpack_from("=Q", data, at + 144)[0])


def root_of_free_list(data: bytearray) -> int:
    start = newest(data)
    return int(struct.unpack_from("=Q", data, start + 40 + 40)[0]) * PAGE


def meta(at: int, value: int, code: str = "=Q") -> Spoil:
    return lambda data: struct.pack_into(code, data, newest(data) + at, value)


def free_page_in_use(data: bytearray) -> None:
    """The free list names the root of the list of tables."""
    (root,) = struct.unpack_from("=Q", data, newest(data) + 40 + 48 + 40)
    leaf = root_of_free_list(data)
    while struct.unpack_from("=H", data, leaf + 10)[0] == 1:  # a branch
        (node,) = struct.unpack_from("=H", data, leaf + 16)
        low, high = struct.unpack_from("=HH", data, leaf + node)
        leaf = (low | high << 16) * PAGE
    (node,) = struct.unpack_from("=H", data, leaf + 16)
    size, _, flags, key = struct.unpack_from("=HHHH", data, leaf + node)
    assert flags == 0
    assert size >= 16
    struct.pack_into("=Q", data, leaf + node + 8 + key + 8, root)


@pytest.mark.rule("R41")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data.__delitem__(slice(100, None)), "cut short"),
        (lambda data: data.__delitem__(slice(PAGE, None)), "cut short"),
        (lambda data: data.__delitem__(slice(20 * PAGE, None)), "cut short: page"),
        (lambda data: zero(data, 0), "page 0 is not that of an LMDB"),
        (lambda data: zero(data, PAGE), "page 1 is not that of an LMDB"),
        (meta(16, 0x12345678, "=I"), "not that of an LMDB"),
        (meta(32, 12345), "impossible map size"),
        (meta(32, (1 << 62)), "impossible map size"),
        (meta(40, 1000, "=I"), "impossible page size"),
        (meta(44, 1, "=H"), "table of an unknown kind"),
        (meta(40 + 48 + 6, 3, "=H"), "of another kind"),
        (meta(40 + 48 + 32, 7), "does not hold what it counts"),
        (meta(40 + 48 + 40, 1 << 40), "there is no page"),
        (meta(136, 1 << 40), "impossible map size"),
        (free_page_in_use, "two uses"),
        (every_page(2, zero), "another one or none"),
        (every_page(2, put(10, 1)), "of another kind"),
        (every_page(2, put(12, 10)), "impossible bounds"),
        (every_page(2, put(14, 60000)), "impossible bounds"),
        (every_page(2, put(16, 4095)), "entries outside"),
        (every_page(2, swap_entries), "keys out of order"),
        (every_page(2, lose_an_entry), "entries that overlap|impossible bounds"),
        (every_page(1, zero), "another one or none"),
        (every_page(1, swap_entries), "keys out of order|without a transaction"),
        (every_page(4, zero), "does not begin a large value"),
        (every_page(4, put(12, 1, code="I")), "does not begin a large value|does not hold"),
        (every_page(4, put(12, 1 << 20, code="I")), "there is no page|two uses"),
    ],
)
def test_a_page_that_is_not_as_it_should_be_is_named(
    example: Path, tmp_path: Path, spoil: Spoil, reason: str
) -> None:
    data = bytearray((example / "data.mdb").read_bytes())
    spoil(data)
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(Damaged, match=reason):
        read_all(tmp_path)


def test_whatever_is_altered_it_is_read_or_named(example: Path, tmp_path: Path) -> None:
    """No other exception, no endless loop, no memory without bound."""
    original, chance = (example / "data.mdb").read_bytes(), Random(7)
    with PageFile(example / "data.mdb") as pages:
        for tree in pages.tables().values():
            list(pages.records(tree))
        used = [number for number, seen in enumerate(pages._seen) if seen]
    damaged = 0
    for _ in range(300):
        data = bytearray(original)
        page = chance.choice([0, 1, *used]) * PAGE
        for _ in range(chance.choice([1, 1, 8, 400])):
            data[page + int(chance.triangular(0, PAGE - 1, 0))] = chance.randrange(256)
        (tmp_path / "data.mdb").write_bytes(data)
        try:
            read_all(tmp_path)
        except Damaged:
            damaged += 1
    assert damaged > 10
