"""The disk of a simulated device: what survives a kill, what survives a power cut, and what a full disk refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from decaf_node.mesh.events import Edge, Receipt, Snapshot

KEPT = 2  # saved rounds, as ``store.keep``
Key = tuple[str, str]  # peer, digest of our snapshot


@dataclass(frozen=True)
class SavedRound:
    """A saved round: what the machine gets back, and what the trainer does. wall: by the device's own clock."""

    round: int
    mixes: int
    snapshot: Snapshot
    wall: float
    value: Any
    applied: dict[tuple[str, str], float]
    damaged: bool = False


@dataclass(frozen=True)
class ReceiptRow:
    """An edge's receipts. written: when ours was; the last seconds before a power cut are lost."""

    ours: Receipt
    theirs: Receipt | None
    written: float


@dataclass
class Disk:
    """State folder and spool of one device. The spool lies in memory: it survives a kill and no power cut."""

    full: bool = False
    rounds: list[SavedRound] = field(default_factory=list)
    receipts: dict[Key, ReceiptRow] = field(default_factory=dict)
    unheard: tuple[Edge, ...] = ()
    spool: dict[str, Any] = field(default_factory=dict)
    partial: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0

    def commit(self, saved: SavedRound, covers: tuple[Edge, ...], unheard: tuple[Edge, ...]) -> None:
        """Make a round durable, drop the receipts that it covers and keep what is ``unheard``, in one step."""
        self.rounds = [saved, *self.rounds][:KEPT]
        self.unheard = unheard
        for edge in covers:
            self.receipts.pop((edge.peer, edge.own), None)

    def newest(self) -> SavedRound | None:
        """Return the newest saved round that is whole."""
        return next((saved for saved in self.rounds if not saved.damaged), None)

    def write_ours(self, peer: str, receipt: Receipt, early: Receipt | None, now: float) -> None:
        """Keep our receipt, with theirs if that came first. early: the last of the peer that answered none of ours."""
        answers = early is not None and (early.theirs, early.own) == (receipt.own, receipt.theirs)
        theirs = early if answers else None
        self.receipts[peer, receipt.own] = ReceiptRow(receipt, theirs, now)

    def write_theirs(self, peer: str, receipt: Receipt) -> bool:
        """Keep their receipt beside ours; say whether it answers one of ours."""
        row = self.receipts.get((peer, receipt.theirs))
        if row is None or row.ours.theirs != receipt.own:
            return False
        if not self.full:
            self.receipts[peer, receipt.theirs] = replace(row, theirs=receipt)
        return True

    def edges(self) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
        """Return the edges to be mixed again, and those of which only our receipt is kept; both with their bytes."""
        unsaved, promised = [], []
        for (peer, own), row in self.receipts.items():
            if own not in self.spool or row.ours.theirs not in self.spool:
                continue
            if row.theirs is None:
                promised.append(Edge(peer, own, row.ours.theirs, row.ours.weight))
            else:
                weight = min(row.ours.weight, row.theirs.weight)
                unsaved.append(Edge(peer, own, row.ours.theirs, weight))
        return tuple(unsaved), tuple(promised)

    def lose_power(self, lost_since: float) -> None:
        """Forget what was not flushed: the spool, and the receipts written after ``lost_since``."""
        self.spool.clear()
        self.partial.clear()
        self.receipts = {key: row for key, row in self.receipts.items() if row.written <= lost_since}

    def damage_newest(self) -> bool:
        """Damage the newest saved round where an older one is whole; say whether it did."""
        if len(self.rounds) < KEPT or any(saved.damaged for saved in self.rounds):
            return False
        self.rounds[0] = replace(self.rounds[0], damaged=True)
        self.acknowledged = self.rounds[1].round
        return True

    def wipe(self) -> None:
        """Lose everything."""
        self.rounds.clear()
        self.receipts.clear()
        self.unheard = ()
        self.spool.clear()
        self.partial.clear()
        self.acknowledged = 0

    def copy(self) -> Disk:
        """Return what a cloned disk holds; the spool lies in memory and is not cloned."""
        return Disk(
            rounds=list(self.rounds),
            receipts=dict(self.receipts),
            unheard=self.unheard,
            acknowledged=self.acknowledged,
        )
