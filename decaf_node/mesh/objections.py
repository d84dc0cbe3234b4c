"""What people read: why an edge is not wanted, at both ends, and what goes wrong here. Reason IDs and sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decaf_node.mesh.events import Offer, Receipt, SaveFailed, SnapshotInspected, Warn
from decaf_node.mesh.member import Member

# A peer that says one of these wants no edges for a while: it is no neighbour until then.
DECLINES = frozenset({"mesh.done", "mesh.paused", "mesh.no-exchange", "mesh.cannot-save", "mesh.stopping"})
# A peer that says one of these has found our snapshot no good: the next edge waits.
OUR_FAULTS = frozenset({"mesh.other-schema", "mesh.not-finite", "mesh.bad-snapshot", "mesh.too-large", "mesh.too-far"})
NOT_A_NEIGHBOUR = "mesh.not-a-neighbour"
# The lower ID's stream is on its way: no refusal at all.
DUPLICATE = "mesh.duplicate-stream"


@dataclass(frozen=True)
class Refusal:
    """content: what the peer sent was no good, so the next edge with it waits."""

    reason: str
    message: str
    content: bool = False


ADOPTING = Refusal(
    "mesh.adopting", "This node is new and takes over the state of the mesh first; try again next round."
)
DONE = Refusal("mesh.done", "This node has trained all its rounds and mixes no more; go on without it.")
PAUSED = Refusal("mesh.paused", "This node is paused; it mixes again after decaf-node resume.")
STOPPING = Refusal("mesh.stopping", "This node is stopping; it mixes again when it is back.")
NO_EXCHANGE = Refusal("mesh.no-exchange", "This node trains alone (algorithm local); leave it out of the mesh.")
NO_SNAPSHOT = Refusal("mesh.no-snapshot", "This node has published nothing since it started; ask again in a while.")
NO_SHARE = Refusal(
    "mesh.no-share", "Edges of earlier rounds are unsettled here, and no weight is left; try again later."
)
USED_SNAPSHOT = Refusal(
    "mesh.used-snapshot", "This snapshot has been mixed with already and counts once; offer the next one."
)
TOO_FAR = Refusal(
    "mesh.too-far",
    "The snapshot is so much farther from this node's than all others that it counts for nothing; try again later.",
    content=True,
)
NO_ROOM = Refusal("mesh.no-room", "This node has its edges of this turn already; it goes on with the next one.")
CANNOT_SAVE = Refusal("mesh.cannot-save", "This node cannot save its rounds and mixes no more until its disk has room.")
FULL = Refusal("mesh.full", "This node knows as many members as it may; raise limits.peers there.")


def not_a_neighbour(topology: str) -> Refusal:
    """Return the refusal of a peer that the topology puts elsewhere."""
    sentence = f"We are no neighbours in the {topology} topology as this node sees it; try again next round."
    return Refusal(NOT_A_NEIGHBOUR, sentence)


def bad_content(reason: str, problem: str) -> Refusal:
    """Return the refusal of a snapshot that cannot be mixed."""
    return Refusal(reason, f"The snapshot cannot be mixed here: {problem.rstrip('.')}; try again later.", content=True)


def object_to_inspected(event: SnapshotInspected) -> Refusal | None:
    """Return why a snapshot that the trainer has looked at cannot be mixed."""
    figures = (event.distance, event.norm, event.plain_distance, event.plain_norm)
    if not (event.finite and all(math.isfinite(figure) for figure in figures)):
        return bad_content("mesh.not-finite", event.problem or "it holds numbers that are not finite")
    return bad_content("mesh.bad-snapshot", event.problem) if event.problem else None


def object_to_weight(receipt: Receipt) -> Refusal | None:
    """Return why a receipt cannot be true: a weight lies above 0 and up to 1."""
    if math.isfinite(receipt.weight) and 0.0 < receipt.weight <= 1.0:
        return None
    sentence = f"The receipt proposes the weight {receipt.weight!r}, which is not above 0 and up to 1; try again later."
    return Refusal("mesh.bad-receipt", sentence, content=True)


def object_to(offer: Offer, member: Member, schema: str, limit_bytes: int, now: float) -> Refusal | None:
    """Return why an offer cannot be mixed with ours of ``schema`` (empty: not known yet); None if it can."""
    if schema and offer.schema != schema:
        return Refusal("mesh.other-schema", f"{schema_problem(offer.schema, schema)}; give both the same settings.")
    if now < member.refused_until:
        return Refusal("mesh.backing-off", "The last snapshot between us was no good; try again in a while.")
    if offer.adopt:
        return None
    if offer.snapshot is None:
        return Refusal("mesh.bad-offer", "The offer names no snapshot; both nodes need the same version.", content=True)
    size = offer.snapshot.size_bytes
    if not 0 < size <= limit_bytes:
        sentence = f"The snapshot has {size} bytes and this node takes {limit_bytes}; raise limits.snapshot_bytes here."
        return Refusal("mesh.too-large", sentence, content=True)
    return None


def schema_problem(theirs: str, ours: str) -> str:
    """Say that two nodes have nothing to mix."""
    return f"It has another base model or adapter (schema {theirs[:8]}) than this node (schema {ours[:8]})"


def save_failed(event: SaveFailed) -> Warn:
    """Say that a round is not durable."""
    problem = event.problem.rstrip(".")
    return Warn("mesh.save-failed", f"Round {event.round} could not be saved: {problem}; it is tried again later.")


def trainer_of_other_schema(theirs: str, ours: str) -> Warn:
    """Say that the trainer and the saved state do not belong together."""
    return Warn(
        "mesh.other-schema",
        f"The trainer has another model or adapter (schema {theirs[:8]}) than the state of this node (schema "
        f"{ours[:8]}); give it the old settings, or a new state folder.",
    )
