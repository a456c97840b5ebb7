"""With the rule taken out that defends against a mode, the checkers see the damage.

Each mutant is made here and lives as long as its test; the mode itself is as it ships.
"""

import pytest

import client.ordered
from pbft.core.quorum import Quorum, VoteSet
from pbft.core.suspicion import Suspicion
from pbft.faults.modes import MODES
from pbft.node.authentication import Authenticator


def wait_for_everybody(monkeypatch):
    monkeypatch.setattr(Quorum, "q", property(lambda self: self.n))


def believe_the_first_reply(monkeypatch):
    collector = client.ordered.ReplyCollector

    def credulous(envelopes, digest, operations, _enough):
        return collector(envelopes, digest, operations, 1)

    monkeypatch.setattr(client.ordered, "ReplyCollector", credulous)


def count_votes_whatever_their_digest(monkeypatch):
    def matching(self, digest):
        votes = sorted(self._votes.items(), key=lambda item: (item[1][0] != digest, item[0]))
        return tuple(vote for _, (_, vote) in votes)

    monkeypatch.setattr(VoteSet, "count", lambda self, _digest: len(self))
    monkeypatch.setattr(VoteSet, "matching", matching)


def let_requests_pass_unchecked(monkeypatch):
    monkeypatch.setattr(Authenticator, "_check_clients", lambda _self, _content: None)


def suspect_nobody(monkeypatch):
    monkeypatch.setattr(Suspicion, "on_timer", lambda _self, _name, _now: [])


def check_no_signature(monkeypatch):
    monkeypatch.setattr(Authenticator, "_check_signature", lambda _self, _key, _envelope: None)


CONTROLS = {
    "silent": (wait_for_everybody, "liveness"),
    "lie": (believe_the_first_reply, "results"),
    "equivocate": (count_votes_whatever_their_digest, "agreement"),
    "forge-request": (let_requests_pass_unchecked, "validity"),
    "mute": (suspect_nobody, "liveness"),
    "bad-signature": (check_no_signature, "proofs"),
}


def test_every_mode_has_a_control():
    assert CONTROLS.keys() == MODES.keys()


@pytest.mark.parametrize("mode", MODES)
def test_without_the_rule_that_defends_the_checkers_see_the_damage(run, monkeypatch, mode):
    take_out_the_defence, damage = CONTROLS[mode]
    take_out_the_defence(monkeypatch)
    assert run({}).failures == []  # the mutant alone is not what does the harm
    outcome = run({0: mode})
    assert any(failure.startswith(damage) for failure in outcome.failures)
