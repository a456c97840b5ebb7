"""Backups: the application's state at one stable checkpoint in one file, with its certificate.

A file is a sequence of records, each a length (4 bytes, big-endian) and so many bytes of canonical
MessagePack: a `BackupHeader`, then the buckets of the application's tree in order of their paths.
A length of 0 and the SHA-256 of all that comes before end it. The inner nodes follow from the
buckets, and the root from them; the header proves the root. So the whole file is checked while it
is read, in memory for a few nodes.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta, Struct

from crypto.signing import Ed25519Verifier
from pbft.codec import encode
from pbft.config import ClusterConfig
from pbft.messages import TREE_FANOUT, Digest, Proof, StateSummary, TreeNode
from pbft.proofs import InvalidProof, check_certificate, checked_digest, decode_whole
from pbft.storage.tree_node import EMPTY_DIGEST, inner_digest

FORMAT = 3
MAX_RECORD_BYTES = 32 * 1024 * 1024
_LENGTH_BYTES, _DIGEST_BYTES = 4, 32
_MAGIC = b"\xabpbft-backup"


class BackupHeader(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pbft-backup"
):
    """Which state of which cluster, and the CHECKPOINTs of the quorum that vouches for it."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    cluster_id: Digest
    summary: StateSummary
    checkpoints: Proof


_headers = msgspec.msgpack.Decoder(BackupHeader)
_nodes = msgspec.msgpack.Decoder(TreeNode)


def is_backup(beginning: bytes) -> bool:
    """Whether a file that begins like this (16 bytes or more) is a backup, of whatever format."""
    return beginning[_LENGTH_BYTES + 1 :].startswith(_MAGIC)


class RootOfBuckets:
    """The root of the tree that has these buckets, which come in order of their paths."""

    def __init__(self) -> None:
        self._open: list[tuple[bytes, list[bytes]]] = []
        self._last = b""
        self._root = EMPTY_DIGEST

    def add(self, bucket: TreeNode) -> None:
        """Raises InvalidProof for what can be no bucket of a tree after those before."""
        digest, path = checked_digest(bucket), bucket.path
        below = bool(self._last) and path.startswith(self._last)
        if digest is None or bucket.children or path[0] or path <= self._last or below:
            raise InvalidProof("it holds something that is not the next part of the state")
        self._last = path
        while self._open and not path.startswith(self._open[-1][0]):
            self._close()
        for length in range(len(self._open) + 1, len(path)):
            self._open.append((path[:length], [EMPTY_DIGEST] * TREE_FANOUT))
        self._put(path, digest)

    def _close(self) -> None:
        path, children = self._open.pop()
        self._put(path, inner_digest(path, b"".join(children)))

    def _put(self, path: bytes, digest: bytes) -> None:
        if self._open:
            self._open[-1][1][path[-1]] = digest
        else:
            self._root = digest

    def root(self) -> bytes:
        """The digest of all of it; nothing can be added any more."""
        while self._open:
            self._close()
        return self._root


class BackupWriter:
    """Writes one backup into an empty file, and checks on the way what it writes."""

    def __init__(self, file: BinaryIO, header: BackupHeader) -> None:
        self._file = file
        self._hash = sha256()
        self._root = RootOfBuckets()
        self._wanted = header.summary.application_root
        self._record(encode(header))

    def add(self, bucket: TreeNode) -> None:
        """The next bucket. Raises InvalidProof, OSError."""
        self._root.add(bucket)
        self._record(encode(bucket))

    def finish(self) -> None:
        """End the file. Raises InvalidProof where something is missing."""
        if self._root.root() != self._wanted:
            raise InvalidProof("what was written is not the state that the certificate names")
        self._write(bytes(_LENGTH_BYTES))
        self._file.write(self._hash.digest())

    def _record(self, raw: bytes) -> None:
        self._write(len(raw).to_bytes(_LENGTH_BYTES, "big"))
        self._write(raw)

    def _write(self, raw: bytes) -> None:
        self._hash.update(raw)
        self._file.write(raw)


class BackupReader:
    """Reads the backup in `file`, made of the cluster of `config`.

    `signers` vouch for the header. Raises InvalidProof, OSError.
    """

    def __init__(self, file: BinaryIO, config: ClusterConfig) -> None:
        self._file = file
        self._hash = sha256()
        self.header = self._header()
        if self.header.cluster_id != config.cluster_id:
            raise InvalidProof("it is a backup of another cluster")
        self.signers = check_certificate(
            config, Ed25519Verifier(), self.header.summary, self.header.checkpoints
        )

    def buckets(self) -> Iterator[TreeNode]:
        """The buckets in order. Only once the iterator has ended without InvalidProof is it sure
        that they are the state that the header names."""
        root = RootOfBuckets()
        while raw := self._record():
            bucket: TreeNode = decode_whole(_nodes, raw)
            root.add(bucket)
            yield bucket
        if self._file.read(_DIGEST_BYTES + 1) != self._hash.digest():
            raise InvalidProof("the file is damaged or cut off")
        if root.root() != self.header.summary.application_root:
            raise InvalidProof("it is not the state that the certificate names")

    def _header(self) -> BackupHeader:
        raw = self._record()
        if raw[1 : 1 + len(_MAGIC)] != _MAGIC:
            raise InvalidProof("it is no backup that pbft has written")
        if raw[1 + len(_MAGIC) :][:1] != bytes([FORMAT]):
            raise InvalidProof(f"it is a backup of another format than {FORMAT}")
        header: BackupHeader = decode_whole(_headers, raw)
        return header

    def _record(self) -> bytes:
        """The next one; empty at the end."""
        size = int.from_bytes(self._read(_LENGTH_BYTES), "big")
        if size > MAX_RECORD_BYTES:
            raise InvalidProof("the file is damaged")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        raw = self._file.read(size)
        if len(raw) != size:
            raise InvalidProof("the file is damaged or cut off")
        self._hash.update(raw)
        return raw
