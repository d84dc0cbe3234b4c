"""What the log says of the start, of rounds and of peers: one line a round, one when a peer comes or goes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from decaf_node.daemon.host import Me
from decaf_node.daemon.logs import fields
from decaf_node.daemon.node_id import short
from decaf_node.daemon.reports import RoundReport
from decaf_node.mesh.view import NodeView
from decaf_node.places import Places

log = logging.getLogger(__name__)

UNITS = ("B", "kB", "MB", "GB")


def say_who(me: Me, places: Places, external: bool) -> None:
    """The daemon has started. external: somebody else starts the trainer."""
    said = fields(event="started", node=me.node, name=me.name, mesh=me.mesh, address=me.address)
    log.info(
        "Node %s (%s) of the mesh %r listens on %s; its state is in %s.",
        *(me.name, short(me.node), me.mesh, me.address, places.state),
        extra=said,
    )
    if external:
        log.info("Waiting for a trainer to connect at %s.", places.trainer_socket)


class RoundLines:
    """One line a round. A round that is to be evaluated waits for it, but no longer than for the next round."""

    def __init__(self, evaluate_every: int, title: Callable[[str], str]) -> None:
        self._every = evaluate_every
        self._title = title
        self._waiting: RoundReport | None = None

    def mixed(self, row: RoundReport) -> None:
        """The round is mixed."""
        self._waiting = row
        if row.round % self._every or row.evaluation_loss is not None:
            self.flush()

    def evaluated(self, row: RoundReport) -> None:
        """The row of the round has its evaluation."""
        if self._waiting is not None and self._waiting.round == row.round:
            self._waiting = row
            self.flush()

    def flush(self) -> None:
        """Say what still waits."""
        if self._waiting is not None:
            row, self._waiting = self._waiting, None
            log.info("%s", round_line(row, self._title), extra=round_fields(row))


class PeerLines:
    """One line when a peer comes or goes, or is late."""

    def __init__(self, title: Callable[[str], str]) -> None:
        self._title = title
        self._states: dict[str, str] = {}

    def watch(self, view: NodeView) -> None:
        """Look at the node after a step."""
        states = {peer.peer: peer.state for peer in view.peers}
        for peer in view.peers:
            if peer.state != self._states.get(peer.peer, "gone"):
                said = fields(peer=peer.peer, state=peer.state, addresses=peer.addresses)
                log.info("Peer %s is %s.", self._title(peer.peer), peer.state, extra=said)
        self._states = states


def round_line(row: RoundReport, title: Callable[[str], str]) -> str:
    """Return the sentence for a round."""
    edges = Counter(title(edge.node) for edge in row.edges)  # a late edge makes two with one neighbour
    mixed = ", ".join(name if count == 1 else f"{name} {count} times" for name, count in edges.items())
    parts = [f"Round {row.round}", f"mixed with {mixed or 'nobody'}"]  # what a narrow screen must not cut off
    if row.steps:
        parts.append(f"loss {row.loss:.4f}")
    if row.evaluation_loss is not None:
        parts.append(f"held-out loss {row.evaluation_loss:.4f}")
    if row.evaluation_accuracy is not None:
        parts.append(f"accuracy {row.evaluation_accuracy:.3f}")
    parts.append(f"sent {amount(row.sent_bytes)}, received {amount(row.received_bytes)}")
    parts.append(f"{row.train_seconds + row.exchange_seconds + row.mix_seconds:.1f} s")
    return "; ".join(parts)


def round_fields(row: RoundReport) -> dict[str, dict[str, object]]:
    """Return the fields of the line for machines."""
    return fields(
        event="round",
        round=row.round,
        loss=row.loss if row.steps else None,
        evaluation_loss=row.evaluation_loss,
        accuracy=row.evaluation_accuracy,
        neighbours=[edge.node for edge in row.edges],
        consensus_distance=row.consensus_distance,
        sent_bytes=row.sent_bytes,
        received_bytes=row.received_bytes,
        train_seconds=row.train_seconds,
        exchange_seconds=row.exchange_seconds,
        mix_seconds=row.mix_seconds,
    )


def amount(count: float) -> str:
    """Return bytes as people read them: ``18.4 MB``."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {UNITS[-1]}"
