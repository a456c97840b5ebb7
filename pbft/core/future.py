"""Votes of views that this replica has not entered yet: kept, bounded per sender (R9, R25)."""

from collections import deque

from pbft.messages import Commit, Prepare, Verified

VOTES_PER_SENDER = 1024


class FutureVotes:
    """The newest votes of each sender for later views."""

    def __init__(self) -> None:
        self._votes: dict[int, deque[Verified[Prepare] | Verified[Commit]]] = {}

    def keep(self, vote: Verified[Prepare] | Verified[Commit]) -> None:
        """Remember `vote`; the sender's oldest one makes room."""
        queue = self._votes.setdefault(vote.body.replica, deque(maxlen=VOTES_PER_SENDER))
        queue.append(vote)

    def take(self, view: int) -> list[Verified[Prepare] | Verified[Commit]]:
        """The votes for `view`, by sender; those for earlier views are dropped."""
        taken = []
        for replica in sorted(self._votes):
            queue = self._votes[replica]
            taken += [vote for vote in queue if vote.body.view == view]
            later = [vote for vote in queue if vote.body.view > view]
            queue.clear()
            queue.extend(later)
        return taken
