"""How a newcomer takes over the state of the mesh: whom it asks, what came back, when it has enough.

It fetches the current snapshots of a few members and has the trainer take their medoid, so that one liar cannot lead
it. With at least one snapshot at hand it waits until ``until``; with none it goes on waiting for what is on its way,
``PATIENCE`` times as long: a slow link must not keep a newcomer out for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decaf_node.mesh.events import Offer

PATIENCE = 10.0
ALONE_ROUNDS = 10  # trained alone: such a node has a state worth keeping, and is a mesh under way for who comes new


@dataclass(frozen=True)
class Ask:
    """One member asked for its state. stage: asked, fetching, inspecting, ready or failed."""

    peer: str
    stage: str = "asked"
    digest: str = ""
    round: int = 0

    @property
    def pending(self) -> bool:
        return self.stage in ("asked", "fetching", "inspecting")


Asks = tuple[Ask, ...]


def must_adopt(ours: Offer, theirs: Offer, absent: bool) -> bool:
    """Say whether we, who offer ``ours``, are a newcomer to a mesh under way that offers ``theirs``.

    Exactly one end has never mixed and is behind in rounds, or has been absent for too long (then its offers say
    that it has never mixed). Two ends that never mixed found a mesh together. Who has trained alone for long says that
    it has mixed: see ``shown_mixes``.
    """
    return ours.mixes == 0 and theirs.mixes > 0 and (absent or ours.round < theirs.round)


def shown_mixes(mixes: int, completed: int, absent: bool) -> int:
    """Return what the offers of a node say after ``completed`` rounds, of which it has mixed in ``mixes``.

    Who was absent for too long says what a newcomer says. Who has trained alone for long does not: a newcomer would
    halve what it has learned, and it must not lose that itself to a mesh that it meets late.
    """
    return 0 if absent else max(mixes, int(completed >= ALONE_ROUNDS))


def find(asks: Asks, peer: str) -> Ask | None:
    """Return what was asked of the peer, unless it failed."""
    return next((ask for ask in asks if ask.peer == peer and ask.stage != "failed"), None)


def put(asks: Asks, peer: str, stage: str, digest: str = "", round: int = 0) -> Asks:
    """Return ``asks`` with the peer's at another stage; its digest and round stay unless given."""
    return tuple(
        replace(ask, stage=stage, digest=digest or ask.digest, round=round or ask.round) if ask.peer == peer else ask
        for ask in asks
    )


def ready(asks: Asks) -> Asks:
    """Return the asks whose snapshots are here and sound, one for each digest, in order of digest."""
    return tuple({ask.digest: ask for ask in sorted(asks, key=lambda ask: ask.digest) if ask.stage == "ready"}.values())


def settled(asks: Asks, until: float, at_last: float, now: float) -> bool:
    """Say whether to stop waiting: nothing is pending, or time is up (``at_last`` if there is nothing to choose)."""
    if not any(ask.pending for ask in asks):
        return True
    on_its_way = any(ask.stage in ("fetching", "inspecting") for ask in asks)
    return now >= (at_last if on_its_way and not ready(asks) else until)
