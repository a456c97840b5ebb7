"""Reads an LMDB file page by page, with plain reads and without trusting any of it.

LMDB maps its file and follows what the pages say: a damaged page can crash the process, a page cut
off is a SIGBUS, and a free list that names a page in use destroys it at the next write. So a file
is read this way first: every page that a root leads to must be a page of the right kind, with its
own number, full of entries that are in order and lie inside of it; no page may be reached twice, or
be reached and be free; and the counts that the roots keep must be true. LMDB has no such check.

The layout is that of LMDB 0.9 (`mdb.c`: MDB_page, MDB_node, MDB_db, MDB_meta), 64 bit, in the
byte order of this machine.
"""

import os
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

MAX_KEY_BYTES = 511
MAX_DEPTH = 32  # LMDB's own bound on the height of a tree
MAX_MAP_BYTES = 1 << 47  # what a process can address

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META, _DIRTY = 0x01, 0x02, 0x04, 0x08, 0x10
_BIG, _TREE = 0x01, 0x02
_INTEGER_KEYS = 0x08
_NOTHING = (1 << 64) - 1  # the root of an empty tree

_HEADER = struct.Struct("=QHHHH")  # number, padding, kind, end of the index, start of the entries
_LARGE_HEADER = struct.Struct("=QHHI")  # number, padding, kind, how many pages
_NODE = struct.Struct("=HHHH")  # low and high half of a size (or page number), flags, key bytes
_ROOT = struct.Struct("=IHHQQQQQ")
_META_START = struct.Struct("=IIQQ")  # magic, version, address, map bytes
_META_END = struct.Struct("=QQ")  # last page, transaction
_PAGE_NUMBER = struct.Struct("=Q")
_META_BYTES = _HEADER.size + _META_START.size + 2 * _ROOT.size + _META_END.size


class Damaged(Exception):
    """The file is not what LMDB has written; the text says what is wrong, in a few words."""


class Tree(NamedTuple):
    """Where a table begins, and what is said of it."""

    depth: int
    branches: int
    leaves: int
    large: int
    entries: int
    root: int


class Meta(NamedTuple):
    """What one of the two first pages says; the one of the later transaction counts."""

    page_bytes: int
    map_bytes: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int


Entry = tuple[bytes, bytes, bool]
"""Key and value of one entry, and whether the value is the root of a table."""


class PageFile:
    """The file at `path`, open for reading; a context. Raises Damaged, OSError."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        try:
            self.bytes = os.fstat(self._file).st_size
            self.meta = self._read_meta()
        except BaseException:
            os.close(self._file)
            raise
        self._page_bytes = self.meta.page_bytes
        self._seen = bytearray(self.bytes // self._page_bytes + 1)
        self._seen_beyond: set[int] = set()  # free pages at the end need not be in the file

    def __enter__(self) -> "PageFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    # --- what there is -----------------------------------------------------------------------

    def tables(self) -> dict[str, Tree]:
        """The tables by name; this checks their directory."""
        found = {}
        for key, value, is_tree in chain.from_iterable(self._leaves(self.meta.main)):
            if not is_tree:
                raise Damaged("the list of tables has something else in it")
            found[key.decode(errors="replace")] = _tree(value, 0, flags=0)
        return found

    def records(self, table: Tree) -> Iterator[tuple[bytes, bytes]]:
        """Key and stored value of each record, in order. Each table can be read once."""
        for leaf in self._leaves(table):
            for key, value, is_tree in leaf:
                if is_tree:
                    raise Damaged("a table inside a table")
                yield key, value

    def free_pages(self) -> int:
        """How many pages are free; to be called once all tables are read."""
        count = 0
        for leaf in self._leaves(self.meta.free, integers=True):
            for _, value, is_tree in leaf:
                for number in () if is_tree else _free_list(value):
                    self._take(number)
                    count += 1
        return count

    # --- pages -------------------------------------------------------------------------------

    def _read_meta(self) -> Meta:
        first = _meta(self._read(0, 4096), 0)
        if self.bytes < 2 * first.page_bytes:
            raise Damaged("it is cut short")
        second = _meta(self._read(first.page_bytes, 4096), 1)
        newest = max((first, second), key=lambda meta: meta.transaction)
        if newest.page_bytes != first.page_bytes:
            raise Damaged("its two first pages differ in the size of a page")
        return newest

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset)

    def _page(self, number: int) -> bytes:
        """A page that nothing else may have led to."""
        self._take(number)
        page = self._read(number * self._page_bytes, self._page_bytes)
        if len(page) < self._page_bytes:
            raise Damaged(f"it is cut short: page {number} is missing")
        if _PAGE_NUMBER.unpack_from(page)[0] != number:
            raise Damaged(f"page {number} is another one or none")
        return page

    def _take(self, number: int) -> None:
        if not 1 < number <= self.meta.last_page:
            raise Damaged(f"there is no page {number}")
        if number >= len(self._seen):
            if number in self._seen_beyond:
                raise Damaged(f"page {number} has two uses")
            self._seen_beyond.add(number)
        elif self._seen[number]:
            raise Damaged(f"page {number} has two uses")
        else:
            self._seen[number] = 1

    # --- trees -------------------------------------------------------------------------------

    def _leaves(self, tree: Tree, *, integers: bool = False) -> Iterator[list[Entry]]:
        """All entries of a tree, after which its own counts are compared with what was found."""
        if tree.root == _NOTHING:
            if tree != (0, 0, 0, 0, 0, _NOTHING):
                raise Damaged("an empty table that counts something")
            return
        if not 1 <= tree.depth <= MAX_DEPTH:
            raise Damaged("a table of an impossible depth")
        found = _Counts()
        yield from self._walk(tree.root, tree.depth, _Order(integers), found)
        counted = (tree.depth, found.branches, found.leaves, found.large, found.entries, tree.root)
        if tree != counted:
            raise Damaged("a table does not hold what it counts")

    def _walk(
        self, number: int, depth: int, order: "_Order", found: "_Counts"
    ) -> Iterator[list[Entry]]:
        page = self._page(number)
        if depth == 1:
            found.leaves += 1
            yield self._leaf(page, order, found)
            return
        found.branches += 1
        for index, (child, key) in enumerate(_branch(page, order.integers)):
            if index:
                order.branch(key)
            yield from self._walk(child, depth - 1, order, found)

    def _leaf(self, page: bytes, order: "_Order", found: "_Counts") -> list[Entry]:
        entries, used = [], 0
        for offset in _index(page, _LEAF):
            low, high, flags, key_bytes = _NODE.unpack_from(page, offset)
            start = offset + _NODE.size + key_bytes
            size = stored = low | high << 16
            if flags == _BIG:
                stored = _PAGE_NUMBER.size
            elif flags not in (0, _TREE):
                raise Damaged("an entry of an unknown kind")
            end = start + stored
            if end > len(page):
                raise Damaged("an entry that runs out of its page")
            used += _even(end - offset)
            key, value = page[offset + _NODE.size : start], page[start:end]
            order.check(key)
            if flags == _BIG:
                value = self._large(_PAGE_NUMBER.unpack(value)[0], size, found)
            entries.append((key, value, flags == _TREE))
        _check_filled(page, used)
        found.entries += len(entries)
        return entries

    def _large(self, number: int, size: int, found: "_Counts") -> bytes:
        """A value that has pages of its own."""
        self._take(number)
        start = number * self._page_bytes
        header = self._read(start, _HEADER.size)
        if len(header) < _HEADER.size:
            raise Damaged(f"it is cut short: page {number} is missing")
        own, _, kind, count = _LARGE_HEADER.unpack(header)
        wanted = -(-(_HEADER.size + size) // self._page_bytes)
        if own != number or kind & ~_DIRTY != _OVERFLOW or count < wanted:
            raise Damaged(f"page {number} does not begin a large value")
        for following in range(number + 1, number + count):
            self._take(following)
        found.large += count
        value = self._read(start + _HEADER.size, size)
        if len(value) < size:
            raise Damaged(f"it is cut short: page {number} and those that follow it are missing")
        return value


class _Counts:
    """What was found of one tree."""

    def __init__(self) -> None:
        self.branches = self.leaves = self.large = self.entries = 0


class _Order:
    """Keys must grow, and lie between those of the branches above them."""

    def __init__(self, integers: bool) -> None:
        self.integers = integers
        self._last = b""
        self._least = b""

    def check(self, key: bytes) -> None:
        """The next key of a leaf."""
        if self.integers:
            key = _comparable(key)
        if key <= self._last or key < self._least:
            raise Damaged("keys out of order")
        if len(key) > MAX_KEY_BYTES:
            raise Damaged("a key of an impossible length")
        self._last = key

    def branch(self, key: bytes) -> None:
        """All keys before this branch were below `key`, all from here on are not."""
        if self.integers:
            key = _comparable(key)
        if key <= self._last or key <= self._least:
            raise Damaged("keys out of order")
        self._least = key


def _comparable(key: bytes) -> bytes:
    if len(key) != _PAGE_NUMBER.size:
        raise Damaged("an entry of the free list without a transaction")
    number: int = _PAGE_NUMBER.unpack(key)[0]
    return number.to_bytes(8, "big")


def _even(size: int) -> int:
    return size + (size & 1)


def _index(page: bytes, kind: int) -> tuple[int, ...]:
    """Where the entries of a page begin."""
    number, _, found, lower, upper = _HEADER.unpack_from(page)
    if found & ~_DIRTY != kind:
        raise Damaged(f"page {number} is of another kind")
    if not _HEADER.size < lower <= upper <= len(page) or lower & 1:
        raise Damaged(f"page {number} has impossible bounds")
    index: tuple[int, ...] = struct.unpack_from(f"={(lower - _HEADER.size) // 2}H", page, 16)
    if min(index) < upper or max(index) > len(page) - _NODE.size or any(at & 1 for at in index):
        raise Damaged(f"page {number} has entries outside of it")
    return index


def _branch(page: bytes, lonely: bool) -> list[tuple[int, bytes]]:
    """Children and, but for the first one, the keys that they begin at.

    LMDB leaves a branch with a single child (`lonely`) in its free list alone.
    """
    children, used = [], 0
    for offset in _index(page, _BRANCH):
        low, high, top, key_bytes = _NODE.unpack_from(page, offset)
        start = offset + _NODE.size
        if start + key_bytes > len(page):
            raise Damaged("an entry that runs out of its page")
        used += _even(_NODE.size + key_bytes)
        children.append((low | high << 16 | top << 32, page[start : start + key_bytes]))
    _check_filled(page, used)
    if len(children) < 2 and not lonely:
        raise Damaged("a branch without branches")
    return children


def _check_filled(page: bytes, used: int) -> None:
    """LMDB keeps the entries of a page side by side: together they fill what is in use of it."""
    number, _, _, _, upper = _HEADER.unpack_from(page)
    if used != len(page) - upper:
        raise Damaged(f"page {number} has entries that overlap")


def _free_list(value: bytes) -> tuple[int, ...]:
    """The free pages of one entry: their count, then their numbers."""
    size = len(value) // 8
    if len(value) % 8 or not size:
        raise Damaged("a free list that is none")
    (count,) = _PAGE_NUMBER.unpack_from(value)
    if count >= size:
        raise Damaged("a free list that is longer than itself")
    numbers: tuple[int, ...] = struct.unpack_from(f"={count}Q", value, 8)
    return numbers


def _meta(page: bytes, number: int) -> Meta:
    if len(page) < _META_BYTES:
        raise Damaged("it is cut short")
    _, _, kind, _, _ = _HEADER.unpack_from(page)
    magic, version, _, map_bytes = _META_START.unpack_from(page, 16)
    if kind & ~_DIRTY != _META or magic != _MAGIC or version != _VERSION:
        raise Damaged(f"its page {number} is not that of an LMDB database")
    page_bytes = struct.unpack_from("=I", page, 40)[0]
    last_page, transaction = _META_END.unpack_from(page, 40 + 2 * _ROOT.size)
    if page_bytes not in (4096, 8192, 16384, 32768, 65536):
        raise Damaged(f"its page {number} has an impossible page size")
    fits = (last_page + 1) * page_bytes <= map_bytes <= MAX_MAP_BYTES
    if last_page < 1 or not fits or map_bytes % page_bytes:
        raise Damaged(f"its page {number} has an impossible map size")
    free = _tree(page[40 : 40 + _ROOT.size], page_bytes, flags=_INTEGER_KEYS)
    main = _tree(page[40 + _ROOT.size : 40 + 2 * _ROOT.size], 0, flags=0)
    return Meta(page_bytes, map_bytes, free, main, last_page, transaction)


def _tree(raw: bytes, padding: int, *, flags: int) -> Tree:
    if len(raw) != _ROOT.size:
        raise Damaged("the root of a table is none")
    found_padding, found_flags, *rest = _ROOT.unpack(raw)
    if (found_padding, found_flags) != (padding, flags):
        raise Damaged("a table of an unknown kind")
    return Tree(*rest)
