"""What must be true of every run: agreement, validity, at most once, equal states."""

from pbft.core.output import Execute
from pbft.simulation.machine import Machine


class Ledger:
    """Watches every execution on every correct machine."""

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}
        self._signed: dict[bytes, None] = {}
        self._applied: dict[bytes, int] = {}
        self.failures: list[str] = []
        self.executed = 0

    def client_sent(self, digest: bytes) -> None:
        """A client has signed the request with this digest."""
        self._signed[digest] = None

    def on_execute(self, machine: Machine, command: Execute) -> None:
        """Agreement: one batch per sequence number; validity: only what clients have signed."""
        if not machine.correct:
            return
        self.executed += 1
        content = command.content
        known = self._digests.setdefault(command.seq, content.digest)
        if known != content.digest:
            self.failures.append(f"agreement: two batches at seq {command.seq}")
        for digest in content.digests:
            if digest not in self._signed:
                self.failures.append(f"validity: a request nobody signed at seq {command.seq}")

    def on_apply(self, operation: bytes, seq: int) -> None:
        """At most once: simulated clients write every value only once, so writes are unique."""
        if self._applied.setdefault(operation, seq) != seq:
            self.failures.append(f"at most once: an operation of seq {seq} was applied before")

    @property
    def last(self) -> int:
        """The highest sequence number that any correct machine executed."""
        return max(self._digests, default=0)


def check_equal_states(machines: list[Machine]) -> list[str]:
    """Correct machines at one sequence number hold the same state (R21)."""
    roots: dict[int, tuple[bytes, bytes, int]] = {}
    failures = []
    for machine in machines:
        if machine.node is None or not machine.correct:
            continue
        summary = machine.node.store.flush()
        root = (summary.application_root, summary.sessions_root, summary.time)
        if roots.setdefault(summary.seq, root) != root:
            failures.append(f"equal digests: states differ after seq {summary.seq}")
    return failures
