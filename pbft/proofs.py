"""Proofs about the state, which anybody can check with `cluster.toml` alone.

q replicas sign the digest of a checkpoint's state (R21), and the tree's nodes lead from the root in
it to any key. So a proof needs no trust in whoever brings it. It speaks for the state right after
one sequence number, never for "now".
"""

from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from crypto.signing import Verifier
from pbft.apps import state_machine
from pbft.codec import SIGNING_DOMAIN, checkpoint_digest, encode, signing_input
from pbft.config import ClusterConfig
from pbft.core.certificates import InvalidCertificate, check_checkpoints, opened
from pbft.core.quorum import Quorum
from pbft.messages import Checkpoint, Digest, Proof, StateSummary, TreeNode, TreePath
from pbft.storage.tree_node import (
    APPLICATION,
    EMPTY_DIGEST,
    MAX_DEPTH,
    MalformedNode,
    node_digest,
    place_of,
)

FORMAT = 3
MAX_KEY_BYTES = state_machine.MAX_KEY_BYTES
MAX_PROOF_BYTES = 32 * 1024 * 1024
ROOT = bytes([APPLICATION])
NOTHING = EMPTY_DIGEST
"""What stands for an empty subtree in place of a digest."""
MAP, KEY_VALUE = 0, 1
"""What a proof's `key` is one of: the application's map, or the key-value store that lies in it."""

_MAGIC = b"\xaapbft-proof"


S = TypeVar("S", bound=Struct)


class InvalidProof(Exception):
    """A proof proves nothing; the text is a sentence for the user."""


class Unproved(Exception):
    """The nodes at hand do not lead to `key`."""

    def __init__(self, key: bytes) -> None:
        super().__init__("the proof does not lead to the key")
        self.key = key


class StateProof(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pbft-proof"
):
    """A proof of what the state after `summary.seq` has under `key`, as it is kept in a file.

    `nodes` are those on the way to the records that say so, in order of their paths.
    """

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    cluster_id: Digest
    subject: Annotated[int, Meta(ge=MAP, le=KEY_VALUE)]
    key: Annotated[bytes, Meta(min_length=1, max_length=MAX_KEY_BYTES)]
    summary: StateSummary
    nodes: Annotated[tuple[TreeNode, ...], Meta(max_length=2 * (MAX_DEPTH + 1))]
    checkpoints: Proof


_decoder = msgspec.msgpack.Decoder(StateProof)


def encode_proof(proof: StateProof) -> bytes:
    """The content of a proof file: canonical MessagePack."""
    return encode(proof)


def decode_proof(raw: bytes) -> StateProof:
    """What a proof file says, unchecked. Raises InvalidProof."""
    if len(raw) > MAX_PROOF_BYTES or raw[1 : 1 + len(_MAGIC)] != _MAGIC:
        raise InvalidProof("it is no proof that pbft has written")
    if raw[len(_MAGIC) + 1 :][:1] != bytes([FORMAT]):
        raise InvalidProof(f"it is a proof of another format than {FORMAT}: use the pbft for it")
    return decode_whole(_decoder, raw)


def decode_whole(decoder: msgspec.msgpack.Decoder[S], raw: bytes) -> S:
    """What `raw` holds, if it is the canonical encoding of it. Raises InvalidProof."""
    try:
        value = decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError):
        raise InvalidProof("the file is damaged") from None
    if encode(value) != raw:
        raise InvalidProof("the file is damaged")
    return value


def check_certificate(
    config: ClusterConfig, verifier: Verifier, summary: StateSummary, checkpoints: Proof
) -> tuple[int, ...]:
    """The replicas, q or more, that have signed for the state with this summary.

    Raises InvalidProof.
    """
    quorum = Quorum(len(config.replicas))
    try:
        body = check_checkpoints(quorum, checkpoints, quorum.q)
        signers = tuple(opened(envelope, Checkpoint).replica for envelope in checkpoints)
    except InvalidCertificate as error:
        raise InvalidProof(f"its certificate does not hold: {error}") from None
    if (body.seq, body.digest) != (summary.seq, checkpoint_digest(summary)):
        raise InvalidProof("its certificate is one of another state")
    for signer, envelope in zip(signers, checkpoints, strict=True):
        key = config.replicas[signer].public_key
        message = signing_input(config.cluster_id, envelope.body)
        if not verifier.verify(key, SIGNING_DOMAIN, message, envelope.signature):
            raise InvalidProof(f"the signature of replica {signer} in its certificate is wrong")
    return signers


def path_of(key: bytes) -> TreePath:
    """The whole path of a key of the application's map: 65 bytes."""
    return ROOT + place_of(key)


class PartialTree:
    """Some nodes of the application's tree, each vouched for by its parent, the first by `root`."""

    def __init__(self, root: bytes) -> None:
        self._expected = {ROOT: root}
        self._known: dict[TreePath, TreeNode] = {}

    @property
    def nodes(self) -> tuple[TreeNode, ...]:
        """All that was added, in order of the paths: parents first."""
        return tuple(node for _, node in sorted(self._known.items()))

    def add(self, nodes: Iterable[TreeNode]) -> None:
        """Take in nodes, parents first. Raises InvalidProof for one that nothing vouches for."""
        for node in nodes:
            if self._expected.get(node.path, EMPTY_DIGEST) != checked_digest(node):
                raise InvalidProof("it holds a tree node that the certified root does not name")
            self._known[node.path] = node
            for branch, digest in enumerate(node.children):
                self._expected[node.path + bytes([branch])] = digest

    def lookup(self, key: bytes) -> bytes | None:
        """The value under `key`, or None where the tree has no such key. Raises Unproved."""
        path, whole = ROOT, path_of(key)
        while self._expected[path] != EMPTY_DIGEST:
            node = self._known.get(path)
            if node is None:
                raise Unproved(key)
            if not node.children:
                return dict(node.entries).get(key)
            path = whole[: len(path) + 1]
        return None


def checked_digest(node: TreeNode) -> bytes | None:
    """What vouches for `node`; None for what is no node that a tree has, also for an empty one."""
    try:
        digest = node_digest(node)
    except MalformedNode:
        return None
    return None if digest == EMPTY_DIGEST else digest
