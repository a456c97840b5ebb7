"""Which replica is probably the primary."""

from pbft.core.quorum import Quorum


class ViewEstimate:
    """The view that at least one correct replica has claimed.

    It is the w-th highest of the views that distinct replicas have signed: w-1 liars can neither
    push it above what a correct replica has claimed nor pull it down.
    """

    __slots__ = ("_claims", "_quorum", "view")

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self._claims: dict[int, int] = {}
        self.view = 0

    @property
    def primary(self) -> int:
        """The replica that proposes in the view believed in."""
        return self._quorum.primary(self.view)

    def claim(self, replica: int, view: int) -> None:
        """`replica` has signed that it is in `view`."""
        if view <= self._claims.get(replica, -1):
            return
        self._claims[replica] = view
        if len(self._claims) >= self._quorum.w:
            highest = sorted(self._claims.values(), reverse=True)
            self.view = highest[self._quorum.w - 1]
