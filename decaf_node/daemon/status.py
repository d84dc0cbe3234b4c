"""The node at a glance: puts together what its parts know, for the monitor."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from decaf_node.daemon.alerts import Alerts
from decaf_node.daemon.driver import Driver
from decaf_node.daemon.figures import Figures
from decaf_node.daemon.history import History
from decaf_node.daemon.holds import Holds
from decaf_node.daemon.host import Host
from decaf_node.daemon.reports import (
    AlertReport,
    PeerReport,
    PrivacyReport,
    RoundReport,
    StatusReport,
    TopologyReport,
    TrainerReport,
)
from decaf_node.daemon.talk import Talk
from decaf_node.daemon.topology import topology_report
from decaf_node.daemon.trainer import Trainer
from decaf_node.mesh.view import NodeView, PeerView


class Status:
    """Answers what the operators ask. topology: mesh.topology; clock: monotonic seconds."""

    def __init__(
        self,
        host: Host,
        driver: Driver,
        talk: Talk,
        trainer: Trainer,
        history: History,
        alerts: Alerts,
        topology: str,
        figures: Figures,
        holds: Holds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._driver = driver
        self._talk = talk
        self._trainer = trainer
        self._history = history
        self._alerts = alerts
        self._topology = topology
        self._figures = figures
        self._holds = holds
        self._clock = clock
        self._version = installed_version()  # of what runs: by now another may be installed
        self._started = clock()
        self._drawing = asyncio.Lock()

    def status(self) -> StatusReport:
        """Return the node at a glance."""
        view, me, total = self._driver.view(), self._host.me, self._host.traffic.total
        return StatusReport(
            node=me.node,
            name=me.name,
            mesh=me.mesh,
            version=self._version,
            instance=me.instance,
            phase=view.phase,
            problem=" ".join(alert.words for alert in self._alerts.look(view)),
            round=view.round,
            saved_round=view.saved_round,
            mixes=view.mixes,
            degree=view.degree,
            waiting_for=view.waiting_for,
            uptime_seconds=self._clock() - self._started,
            resident_bytes=resident_bytes(),
            address=me.address,
            schema=me.schema,
            trainer=self._trainer_report(),
            last_round=self._history.last,
            sent_bytes=total.sent,
            received_bytes=total.received,
            state_folder=str(self._host.store.folder),
            adapter_folder=str(self._host.store.adapter_folder),
            privacy=self._privacy_report(),
            machine=self._figures.now(),
            why_paused=self._holds.why,
        )

    def peers(self) -> list[PeerReport]:
        """Return every member that the node knows of."""
        return [peer_report(peer, self.loss_of(peer.peer)) for peer in self.view().peers]

    def view(self) -> NodeView:
        """Return what the node shows of itself now."""
        return self._driver.view()

    def loss_of(self, peer: str) -> float | None:
        """Return the training loss that a member has told."""
        return self._host.said.loss_of(peer)

    async def rounds(self, before: int, limit: int) -> list[RoundReport]:
        """Return the history, newest first."""
        return await self._host.disk(lambda: self._host.store.rounds(before, limit))

    def alerts(self, view: NodeView) -> list[AlertReport]:
        """Return what is wrong, the worst first."""
        return self._alerts.look(view)

    async def topology(self) -> TopologyReport:
        """Return who mixes with whom. One at a time, in a thread: for a thousand members it takes a while."""
        async with self._drawing:
            view, (graph, turn), me = self._driver.view(), self._driver.graph(), self._host.me
            return await asyncio.to_thread(topology_report, self._topology, graph, turn, me.node, me.name, view)

    def _privacy_report(self) -> PrivacyReport | None:
        said = self._talk.privacy
        if said is None:
            return None
        return PrivacyReport(said.epsilon, said.delta, said.spent, said.steps, said.left, said.noise)

    def _trainer_report(self) -> TrainerReport:
        ready, progress = self._talk.ready, self._talk.progress
        last = self._history.last
        loss = last.loss if last is not None and last.steps else None
        if progress is not None and progress.loss is not None:
            loss = progress.loss
        return TrainerReport(
            pid=self._trainer.pid,
            state=self._trainer_state(),
            restarts=self._trainer.restarts,
            device=ready.device if ready is not None else "",
            rank=ready.rank if ready is not None else 0,
            parameters=ready.parameters if ready is not None else 0,
            loss=loss,
            step=progress.step if progress is not None else 0,
            steps_per_second=progress.steps_per_second if progress is not None else 0.0,
        )

    def _trainer_state(self) -> str:
        if self._talk.ready is not None:
            return "ready"
        if self._trainer.external:
            return "external"
        return "starting" if self._trainer.pid else "lost"


def installed_version() -> str:
    """Return the version of decaf-node."""
    try:
        return version("decaf-node")
    except PackageNotFoundError:
        return "unknown"


def resident_bytes() -> int:
    """Return the resident memory of this process (Linux: statm counts pages)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peer_report(view: PeerView, loss: float | None) -> PeerReport:
    """Return what is told of a member."""
    return PeerReport(
        node=view.peer,
        name=view.name,
        state=view.state,
        addresses=view.addresses,
        neighbour=view.neighbour,
        round=view.round,
        heard_seconds=view.heard,
        weight=view.weight,
        distance=view.distance,
        plain_distance=view.plain_distance,
        harm=view.harm,
        clip_factor=view.clip_factor,
        mixes=view.mixes,
        problem=view.problem,
        loss=loss,
    )
