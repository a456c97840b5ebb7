"""Answers to clients: one signature for all replies of a batch (a Merkle root over them)."""

from collections.abc import Sequence

from crypto.merkle import MerkleTree
from pbft.codec import reply_leaf
from pbft.core.context import Context
from pbft.messages import (
    BatchReplies,
    Read,
    ReadReply,
    Reply,
    ReplyLeaf,
    Results,
    StatusQuery,
    StatusReport,
)
from pbft.node.ports import Transport


class Replying:
    """Signs and sends what clients wait for."""

    def __init__(self, context: Context, transport: Transport) -> None:
        self._context = context
        self._transport = transport

    def batch(self, view: int, seq: int, leaves: Sequence[ReplyLeaf]) -> None:
        """Answer every request of an executed batch (R13)."""
        if not leaves:
            return
        tree = MerkleTree([reply_leaf(leaf) for leaf in leaves])
        body = BatchReplies(self._context.id, view, seq, tree.root)
        header = self._context.sign(body).envelope
        for index, leaf in enumerate(leaves):
            reply = Reply(header, index, tree.path(index), leaf)
            self._transport.reply(leaf.client, leaf.session, reply)

    def read(self, read: Read, seq: int, results: Results | None) -> None:
        """Answer a fast read from the state after `seq`, or without results refuse it (R20)."""
        refused, found = results is None, results or ()
        seq = 0 if refused else seq
        body = ReadReply(self._context.id, read.client, read.nonce, refused, seq, found)
        self._transport.answer(read.client, read.nonce, self._context.sign(body).envelope)

    def status(self, query: StatusQuery, report: bytes) -> None:
        """Answer a status query with a JSON object."""
        body = StatusReport(self._context.id, query.client, query.nonce, report)
        self._transport.answer(query.client, query.nonce, self._context.sign(body).envelope)
