"""All that is wrong with this node now, in one list: what its parts have said, and what the mesh around it shows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from decaf_node.daemon.disk_room import Disk, disk_of
from decaf_node.daemon.host import Host
from decaf_node.daemon.problems import Problem, in_parts
from decaf_node.daemon.reports import AlertReport
from decaf_node.mesh.view import NodeView, PeerView

ALONE_SECONDS = 60.0  # mDNS and the dialling of static peers take a few seconds
ROUNDS_WITHOUT_MIX, WITHOUT_MIX_SECONDS = 5, 300.0  # both: where rounds are short, a few are soon over
LOST_SECONDS = 3600.0  # a neighbour is missed for so long; then the mesh is what it is
CLIPPED_BELOW, CLIPPED_SECONDS = 0.9, 900.0
RESTARTS, RESTARTS_SECONDS = 3, 1800.0  # of the trainer, within so long
FULL_BELOW, FULL_BELOW_BYTES = 0.05, 10 * 10**9  # free: of the disk, and so many bytes: a large one has room left then
DISK_EVERY_SECONDS = 60.0


class Alerts:
    """Watches a node. restarts: of the trainer so far; exchanges: it mixes at all; wall: seconds since 1970."""

    def __init__(
        self,
        host: Host,
        restarts: Callable[[], int],
        exchanges: bool,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._restarts = restarts
        self._exchanges = exchanges
        self._clock = clock
        self._wall = wall
        self._since: dict[tuple[str, str], float] = {}
        self._met = clock()  # when another was last here
        self._mixed = 0, 0, self._met  # how many mixes there were, and in which round and when that was first seen
        self._clipped: dict[str, float] = {}  # since when
        self._restarted: deque[float] = deque(maxlen=RESTARTS)
        self._restarts_seen = restarts()
        self._disk: Disk | None = None

    async def run(self) -> None:
        """Look at the disk now and then, until cancelled."""
        while True:
            await self.look_at_disk()
            await asyncio.sleep(DISK_EVERY_SECONDS)

    async def look_at_disk(self) -> None:
        """Ask how much room the state has."""
        self._disk = await self._host.disk(lambda: disk_of(self._host.store.folder))

    def look(self, view: NodeView) -> list[AlertReport]:
        """Return what is wrong, the worst first. To be called often: what lasts is measured by it."""
        self._watch(view)
        found: dict[str, Problem] = {}
        for place, problem in (*self._host.problems.by_place().items(), *self._own(view), *self._of_peers(view)):
            found.setdefault(place, problem)
        now = self._wall()
        self._since = {
            (place, problem.id): self._since.get((place, problem.id), now) for place, problem in found.items()
        }
        alerts = [self._report(place, problem) for place, problem in found.items()]
        return sorted(alerts, key=lambda alert: (alert.severity != "critical", alert.since, alert.place))

    def _report(self, place: str, problem: Problem) -> AlertReport:
        severity, since = "critical" if problem.critical else "warning", self._since[place, problem.id]
        return AlertReport(problem.id, severity, place, since, problem.sentence, problem.remedy)

    def _watch(self, view: NodeView) -> None:
        now = self._clock()
        if any(peer.state != "gone" for peer in view.peers):
            self._met = now
        if self._mixed[0] != view.mixes or not 0 < self._mixed[1] <= view.round:
            self._mixed = view.mixes, view.round, now
        clipped = (peer.peer for peer in view.peers if peer.neighbour and _is_clipped(peer))
        self._clipped = {peer: self._clipped.get(peer, now) for peer in clipped}
        restarts = self._restarts()
        self._restarted.extend([now] * (restarts - self._restarts_seen))
        self._restarts_seen = restarts

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _own(self, view: NodeView) -> Iterator[tuple[str, Problem]]:
        now = self._clock()
        if len(self._restarted) == RESTARTS and now - self._restarted[0] < RESTARTS_SECONDS:
            yield "trainer", _restarting(self._restarts_seen)
        disk = self._disk
        if disk is not None and disk.free_bytes < min(FULL_BELOW * disk.size_bytes, FULL_BELOW_BYTES):
            yield "disk", _nearly_full(disk, str(self._host.store.folder))
        here = any(peer.state != "gone" for peer in view.peers)
        if not here and now - self._met > ALONE_SECONDS:
            yield "alone", _alone(self._host.me.mesh, now - self._met)
        _, round, since = self._mixed
        long = view.round - round >= ROUNDS_WITHOUT_MIX and now - since >= WITHOUT_MIX_SECONDS
        if here and self._exchanges and long:
            yield "mix", _no_mix(view.round - round)

    def _of_peers(self, view: NodeView) -> Iterator[tuple[str, Problem]]:
        now = self._clock()
        for peer in view.peers:
            title = self._host.title(peer.peer)
            if peer.state != "gone" and peer.problem:
                yield peer.peer, _no_edge(title, peer.problem)
            elif peer.state == "gone" and _is_lost(peer):
                yield peer.peer, _lost(title, peer.heard or 0.0)
            elif now - self._clipped.get(peer.peer, now) >= CLIPPED_SECONDS:
                yield peer.peer, _counts_less(title, peer.clip_factor or 0.0)


def _is_clipped(peer: PeerView) -> bool:
    return peer.clip_factor is not None and peer.clip_factor < CLIPPED_BELOW


def _is_lost(peer: PeerView) -> bool:
    """Say whether a peer that is gone is missed: it was mixed, has not said goodbye, and was heard not long ago."""
    return peer.mixes > 0 and not peer.left and peer.heard is not None and peer.heard < LOST_SECONDS


# --- how it is said --------------------------------------------------------------------------------------------------


def _restarting(times: int) -> Problem:
    return Problem(
        "trainer.restarting",
        f"The trainer keeps ending: it was started again {times} times.",
        "The log of the daemon says why; out of memory is the usual cause.",
        critical=True,
    )


def _nearly_full(disk: Disk, folder: str) -> Problem:
    return Problem(
        "disk.nearly-full",
        f"{disk.free_bytes / 1e9:.1f} GB are left of the disk under {folder}, {disk.free_bytes / disk.size_bytes:.0%}.",
        "Make room, or move the state folder: a round that cannot be saved is lost with the power.",
        critical=True,
    )


def _alone(mesh: str, seconds: float) -> Problem:
    return Problem(
        "mesh.alone",
        f"No other node of the mesh {mesh!r} has been seen for {seconds / 60:.0f} min.",
        "Start one on this network, or name its address in mesh.peers.",
    )


def _no_mix(rounds: int) -> Problem:
    return Problem(
        "mesh.no-mix",
        f"This node has mixed with nobody for {rounds} rounds.",
        "decaf-node peers shows who is missing, and why there is no edge.",
    )


def _no_edge(title: str, problem: str) -> Problem:
    what, remedy = in_parts(problem)
    return Problem("neighbour.no-edge", f"{title}: {what}", remedy)


def _lost(title: str, seconds: float) -> Problem:
    return Problem(
        "neighbour.lost",
        f"{title} is gone: it was last heard {f'{seconds / 60:.0f} min' if seconds >= 60 else f'{seconds:.0f} s'} ago.",
        "Start it, or look at the network between.",
    )


def _counts_less(title: str, factor: float) -> Problem:
    return Problem(
        "neighbour.clipped",
        f"{title} counts for less, {factor:.0%} of its weight: its adapter is far off those of the others.",
        "Compare data and settings there; docs/security.md says what clipping means.",
    )
