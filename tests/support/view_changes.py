"""VIEW-CHANGEs and NEW-VIEWs made by hand, and clusters of cores that live through them."""

from collections.abc import Callable, Iterable, Sequence

from cores import Cores

from pbft.core import events
from pbft.core.new_view import compute
from pbft.core.output import Output
from pbft.messages import NewView, Packet, Prepare, PreparedProof, PrePrepare, ViewChange

Loss = Callable[[int, int, Packet], bool]
NOWHERE = bytes(32)


def view_change(
    cores: Cores,
    i: int,
    view: int,
    prepared: Iterable[PreparedProof] = (),
    stable: tuple[int, bytes] = (0, NOWHERE),
) -> ViewChange:
    """What replica `i` says when it leaves for `view`; `stable` is a (seq, digest) that q prove."""
    seq, state = stable
    proof = cores.checkpoint_proof(seq, state) if seq else ()
    return ViewChange(i, view, seq, state, proof, tuple(prepared))


def new_view(cores: Cores, *changes: ViewChange, primary: int | None = None) -> NewView:
    """The NEW-VIEW that an honest primary builds from these VIEW-CHANGEs."""
    plan = compute(cores.contexts[0].quorum, changes)
    proposals = [(proposal.seq, proposal.digest) for proposal in plan.proposals]
    return opening(cores, changes, proposals, primary)


def opening(
    cores: Cores,
    changes: Sequence[ViewChange],
    proposals: Sequence[tuple[int, bytes]],
    primary: int | None = None,
) -> NewView:
    """A NEW-VIEW with just these (seq, digest) proposals, whatever follows from `changes`."""
    view = changes[0].view
    who = view % len(cores.cores) if primary is None else primary
    return NewView(
        who,
        view,
        tuple(cores.envelope(change.replica, change) for change in changes),
        tuple(cores.envelope(who, PrePrepare(who, view, *proposal)) for proposal in proposals),
    )


def quiet(cores: Cores, view: int, *replicas: int) -> list[ViewChange]:
    """VIEW-CHANGEs of replicas that have prepared nothing."""
    return [view_change(cores, i, view) for i in replicas]


def leave(cores: Cores, i: int, view: int, others: Iterable[int] | None = None) -> Output:
    """Let core `i` leave for `view`, since a weak quorum of `others` has."""
    w = cores.contexts[0].quorum.w
    voices = [j for j in range(len(cores.cores)) if j != i][:w] if others is None else list(others)
    outputs = [cores.receive(i, view_change(cores, j, view)) for j in voices]
    return outputs[-1]


def count_own(cores: Cores, i: int, output: Output) -> list[Output]:
    """Let core `i` count what it has just voted, now that it is durable."""
    return [cores.step(i, events.OwnDurable(message)) for message in output.own]


def prepared_at(cores: Cores, i: int, seq: int, bundle: int | None = None, view: int = 0) -> bytes:
    """Let backup `i` prepare a batch at `seq` of `view`; its digest is returned."""
    content = cores.content(cores.request(bundle=seq if bundle is None else bundle))
    quorum = cores.contexts[i].quorum
    own = cores.step(i, cores.proposal(content, seq, view))
    for j in [j for j in range(quorum.n) if j not in (i, view % quorum.n)][: quorum.q - 2]:
        cores.receive(i, Prepare(j, view, seq, content.digest))
    count_own(cores, i, own)
    return content.digest


def start(cores: Cores) -> None:
    """Let every core begin its heartbeats."""
    for i in range(len(cores.cores)):
        cores.step(i, events.Started(i))


def live(cores: Cores, milliseconds: int, lose: Loss, step: int = 50) -> None:
    """Let everybody live on for a while in a network that loses what `lose` says."""
    for _ in range(0, milliseconds, step):
        cores.pass_time(step)
        for i in range(len(cores.cores)):
            cores.step(i, events.Tick())
        cores.run(lose)


def nothing_lost(_sender: int, _receiver: int, _packet: Packet) -> bool:
    """A perfect network."""
    return False


def cut_off(*replicas: int) -> Loss:
    """A network in which these replicas neither hear nor are heard."""
    return lambda sender, receiver, _packet: sender in replicas or receiver in replicas


def parted(*groups: set[int]) -> Loss:
    """A network in which only members of one group reach each other."""
    return lambda a, b, _packet: not any(a in group and b in group for group in groups)
