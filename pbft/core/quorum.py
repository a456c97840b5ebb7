"""How many replicas are enough, and votes counted by signer.

With n replicas, f = ⌊(n-1)/3⌋ may be faulty. A quorum is q = ⌈(n+f+1)/2⌉: two quorums meet in at
least f+1 replicas, so in a correct one, and q ≤ n-f, so the correct ones suffice. A weak quorum
of w = f+1 holds at least one correct replica. (Malkhi & Reiter 1998; for n = 3f+1 this is PBFT's
2f+1.)
"""

from typing import Generic, TypeVar

from msgspec import Struct

from pbft.messages import Body, Verified


class Quorum(Struct, frozen=True):
    """The thresholds for `n` replicas. Raises ValueError for n < 4."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 4:
            raise ValueError("PBFT needs at least 4 replicas to tolerate 1 fault (n >= 3f+1)")

    @property
    def f(self) -> int:
        """How many replicas may be faulty."""
        return (self.n - 1) // 3

    @property
    def q(self) -> int:
        """The size of a quorum."""
        return (self.n + self.f + 2) // 2

    @property
    def w(self) -> int:
        """The size of a weak quorum: at least one of its members is correct."""
        return self.f + 1

    def primary(self, view: int) -> int:
        """The replica that proposes in `view` (O4.1)."""
        return view % self.n


V = TypeVar("V", bound=Body)


class VoteSet(Generic[V]):
    """At most one vote per signer (R6): the first one counts, a contradiction is handed back."""

    __slots__ = ("_votes",)

    def __init__(self) -> None:
        self._votes: dict[int, tuple[bytes, Verified[V]]] = {}

    def add(self, replica: int, digest: bytes, vote: Verified[V]) -> Verified[V] | None:
        """Count `vote`; return the earlier vote of the same signer if it contradicts this one."""
        earlier = self._votes.setdefault(replica, (digest, vote))
        return None if earlier[0] == digest else earlier[1]

    def voted(self, replica: int) -> bytes | None:
        """What this signer has voted for."""
        vote = self._votes.get(replica)
        return vote[0] if vote else None

    def count(self, digest: bytes) -> int:
        """How many distinct signers voted for `digest`."""
        return sum(1 for voted, _ in self._votes.values() if voted == digest)

    def matching(self, digest: bytes) -> tuple[Verified[V], ...]:
        """The votes for `digest`, by signer."""
        return tuple(vote for _, (voted, vote) in sorted(self._votes.items()) if voted == digest)

    def tally(self) -> dict[bytes, int]:
        """Votes per digest, in order of digests."""
        counts: dict[bytes, int] = {}
        for digest in sorted(voted for voted, _ in self._votes.values()):
            counts[digest] = counts.get(digest, 0) + 1
        return counts

    def __len__(self) -> int:
        return len(self._votes)
