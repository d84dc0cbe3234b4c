"""What can happen to a node (past tense) and what it does about it (imperative).

Snapshots are named by digest (hex sha256); their bytes stay outside. A peer is named by its node ID. At most one
edge stream is up between two nodes; the host sees to it (of two streams the one the lower ID opened stays) and
serves the bytes of every snapshot that this node has offered on it by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from decaf_node.mesh.rumours import NO_NEWS, News


@dataclass(frozen=True)
class Snapshot:
    """A published state of some node: immutable, named by its digest."""

    digest: str
    round: int
    rank: int
    size_bytes: int


@dataclass(frozen=True)
class Offer:
    """What one end of an edge says first.

    snapshot: what it wants to pair; None from a node that only adopts and gives nothing
    degree:   the number of its neighbours, frozen when it published
    mixes:    rounds in which it has mixed with anyone; 0 means that it shares no history with a mesh yet
    adopt:    it asks for the other's snapshot as a newcomer; no receipts follow and nothing is mixed
    turn:     of a graph that changes from turn to turn, the one for which it published; else 0
    """

    schema: str
    snapshot: Snapshot | None
    round: int
    degree: int
    mixes: int
    adopt: bool = False
    turn: int = 0


@dataclass(frozen=True)
class Receipt:
    """One end's promise that the edge counts: it holds ``theirs``, whole and inspected, and proposes ``weight``.

    own and theirs are digests as the speaker sees them; at the other end they are swapped.
    """

    own: str
    theirs: str
    weight: float


@dataclass(frozen=True)
class Edge:
    """An edge that counts at this end: ``weight * (theirs - own)`` is due in the next mix."""

    peer: str
    own: str
    theirs: str
    weight: float


@dataclass(frozen=True)
class Saved:
    """The last durable state of this node.

    unsaved: edges whose receipts were exchanged after it and whose mix it does not hold yet; they are mixed again
    absent:  seconds since it was saved
    promised: edges of which only our receipt is kept (weight: as we proposed); the other end may still answer
    unheard:  edges whose receipts of ours are said again, whatever has become of the edges here
    """

    round: int
    mixes: int
    schema: str
    snapshot: Snapshot
    unsaved: tuple[Edge, ...] = ()
    absent: float = 0.0
    promised: tuple[Edge, ...] = ()
    unheard: tuple[Edge, ...] = ()


# --- events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainerStarted:
    """The trainer has loaded its model and waits for ``StartTraining``."""

    schema: str
    rank: int


@dataclass(frozen=True)
class TrainerLost:
    """The trainer is gone; the host starts another, and ``TrainerStarted`` comes again."""

    cause: str


@dataclass(frozen=True)
class RoundTrained:
    """The trainer has published the snapshot of its round."""

    snapshot: Snapshot


@dataclass(frozen=True)
class SnapshotInspected:
    """The trainer has looked at a neighbour's snapshot.

    distance: to our snapshot of the edge, in product space; norm: of ours
    plain_distance, plain_norm: the same of the tensors that are averaged plainly (heads, norms, biases)
    harm: what a half-way mix adds to our held-out loss, in parts of the untrained one; 0 where nobody has tried
    """

    peer: str
    digest: str
    finite: bool
    distance: float
    problem: str = ""
    norm: float = 0.0
    plain_distance: float = 0.0
    plain_norm: float = 0.0
    harm: float = 0.0


@dataclass(frozen=True)
class RoundMixed:
    round: int


@dataclass(frozen=True)
class RoundSaved:
    """State and history of the round are durable."""

    round: int


@dataclass(frozen=True)
class SaveFailed:
    round: int
    problem: str


@dataclass(frozen=True)
class StateAdopted:
    """The trainer works on another member's state now; ``chosen`` is the one it took."""

    chosen: str


@dataclass(frozen=True)
class PeerFound:
    """Discovery or a probe knows this peer under these addresses (``host:port``), best first."""

    peer: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class PeerAnswered:
    """A probe came back: the peer is alive and of our mesh. news: what it tells in its answer."""

    peer: str
    name: str
    schema: str
    round: int
    news: News = NO_NEWS


@dataclass(frozen=True)
class HelloReceived:
    """The peer has said hello, with news; ``Node.news`` is what to answer.

    addresses: all that are known of it, best first; empty if none is
    """

    peer: str
    name: str
    schema: str
    round: int
    addresses: tuple[str, ...] = ()
    news: News = NO_NEWS


@dataclass(frozen=True)
class PeerSilent:
    """A probe, or the dialling of an edge, did not get through."""

    peer: str
    problem: str


@dataclass(frozen=True)
class PeerLeft:
    """The peer said goodbye."""

    peer: str


@dataclass(frozen=True)
class OfferReceived:
    """The peer's offer came. incoming: on a stream that it opened, which awaits our answer."""

    peer: str
    offer: Offer
    incoming: bool


@dataclass(frozen=True)
class SnapshotReceived:
    """The peer's offered snapshot is here: whole, digest and header checked against its offer and our schema."""

    peer: str
    digest: str


@dataclass(frozen=True)
class SnapshotRefused:
    """What came is not what was offered, or cannot be mixed here."""

    peer: str
    digest: str
    problem: str


@dataclass(frozen=True)
class ReceiptSaved:
    """Our receipt, and the neighbour's snapshot with it, survives a crash of this process."""

    peer: str
    receipt: Receipt


@dataclass(frozen=True)
class ReceiptReceived:
    """The peer's receipt came (own and theirs as the peer sees them)."""

    peer: str
    receipt: Receipt


@dataclass(frozen=True)
class EdgeRefused:
    """The peer refused the edge, with a reason ID and a sentence."""

    peer: str
    reason: str
    message: str


@dataclass(frozen=True)
class EdgeBroken:
    """The stream to the peer ended before the edge was complete."""

    peer: str
    problem: str


@dataclass(frozen=True)
class PauseRequested:
    pass


@dataclass(frozen=True)
class ResumeRequested:
    pass


@dataclass(frozen=True)
class MixRequested:
    """The local steps of this round are to end now, and what they have made is to be mixed."""


@dataclass(frozen=True)
class StopRequested:
    """Save what there is, say goodbye, and stop."""


@dataclass(frozen=True)
class Tick:
    """The time that ``Node.deadline()`` asked for has come."""


Event = (
    TrainerStarted
    | TrainerLost
    | RoundTrained
    | SnapshotInspected
    | RoundMixed
    | RoundSaved
    | SaveFailed
    | StateAdopted
    | PeerFound
    | PeerAnswered
    | HelloReceived
    | PeerSilent
    | PeerLeft
    | OfferReceived
    | SnapshotReceived
    | SnapshotRefused
    | ReceiptSaved
    | ReceiptReceived
    | EdgeRefused
    | EdgeBroken
    | PauseRequested
    | ResumeRequested
    | MixRequested
    | StopRequested
    | Tick
)


# --- effects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartTraining:
    """Tell the trainer to begin the local steps of ``round``, from the saved state if ``resume``, else afresh."""

    round: int
    resume: bool


@dataclass(frozen=True)
class EndRound:
    """Tell the trainer to end the local steps of ``round`` after the next one; ``RoundTrained`` follows as always."""

    round: int


@dataclass(frozen=True)
class InspectSnapshot:
    """Have the trainer look at a neighbour's snapshot; ``SnapshotInspected`` follows."""

    peer: str
    digest: str
    own: str


@dataclass(frozen=True)
class MixRound:
    """Have the trainer apply these edges and go on to the next round; ``RoundMixed`` follows."""

    round: int
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class AdoptState:
    """Have the trainer take the medoid of these snapshots; ``StateAdopted`` follows. base: see ``link.AdoptState``."""

    candidates: tuple[str, ...]
    base: str | None


@dataclass(frozen=True)
class SaveRound:
    """Make the state after ``round`` durable and drop its receipts; ``RoundSaved`` or ``SaveFailed`` follows.

    covers:  the edges whose receipts (peer, own) this state makes needless: mixed in it, or void
    unheard: the edges whose receipts of ours the peers may not have heard, to be said again also after a restart
    """

    round: int
    mixes: int
    covers: tuple[Edge, ...] = ()
    unheard: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class PauseTraining:
    pass


@dataclass(frozen=True)
class ResumeTraining:
    pass


@dataclass(frozen=True)
class StopTraining:
    """The trainer may go; nothing is left to save."""


@dataclass(frozen=True)
class ProbePeer:
    """Say hello to the peer, and tell it the news; ``PeerAnswered`` or ``PeerSilent`` follows."""

    peer: str
    news: News = NO_NEWS


@dataclass(frozen=True)
class OpenEdge:
    """Open the edge's stream to the peer (instead of one that is up), say receipts ``again``, then send our offer."""

    peer: str
    offer: Offer
    again: tuple[Receipt, ...] = ()


@dataclass(frozen=True)
class AnswerEdge:
    """Send our offer on the stream that the peer opened."""

    peer: str
    offer: Offer


@dataclass(frozen=True)
class FetchSnapshot:
    """Take the peer's snapshot over the edge's stream, from where an earlier try ended."""

    peer: str
    snapshot: Snapshot


@dataclass(frozen=True)
class SaveReceipt:
    """Keep our receipt; ``ReceiptSaved`` follows. clip_factor: what clipping left of the edge's weight, 1 being all."""

    peer: str
    receipt: Receipt
    clip_factor: float = 1.0


@dataclass(frozen=True)
class SendReceipt:
    peer: str
    receipt: Receipt


@dataclass(frozen=True)
class RefuseEdge:
    """Tell the peer why not, and close the stream. The host logs it with the peer's name."""

    peer: str
    reason: str
    message: str


@dataclass(frozen=True)
class CloseEdge:
    """The stream is no longer needed."""

    peer: str


@dataclass(frozen=True)
class Warn:
    """Something a person should read; ``peer`` may be empty."""

    reason: str
    message: str
    peer: str = ""


Effect = (
    StartTraining
    | EndRound
    | InspectSnapshot
    | MixRound
    | AdoptState
    | SaveRound
    | PauseTraining
    | ResumeTraining
    | StopTraining
    | ProbePeer
    | OpenEdge
    | AnswerEdge
    | FetchSnapshot
    | SaveReceipt
    | SendReceipt
    | RefuseEdge
    | CloseEdge
    | Warn
)
