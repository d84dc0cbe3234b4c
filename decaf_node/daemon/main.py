"""The daemon put together: the only place that knows all its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from typing import Any

import grpc

from decaf_node import link
from decaf_node.daemon import logs, service
from decaf_node.daemon.acts import Acts
from decaf_node.daemon.addresses import join, split
from decaf_node.daemon.alerts import Alerts
from decaf_node.daemon.channels import Way
from decaf_node.daemon.control import ControlService, start_control, start_remote
from decaf_node.daemon.dashboard import serve_dashboard
from decaf_node.daemon.dial import Answer, Dialler
from decaf_node.daemon.discovery import Discovery
from decaf_node.daemon.driver import Driver
from decaf_node.daemon.durable import disk_errors, make_folder, refuse_shared
from decaf_node.daemon.edges import Edges
from decaf_node.daemon.enrolment import Enrolment, reached_at
from decaf_node.daemon.figures import Figures
from decaf_node.daemon.gate import Gate
from decaf_node.daemon.handover import Handover
from decaf_node.daemon.health import Health
from decaf_node.daemon.history import History
from decaf_node.daemon.holds import Holds
from decaf_node.daemon.host import Host, Me
from decaf_node.daemon.introducing import Introducing
from decaf_node.daemon.lines import PeerLines, RoundLines, say_who
from decaf_node.daemon.link_server import LinkServer
from decaf_node.daemon.listening import check_plaintext
from decaf_node.daemon.live_settings import live_settings
from decaf_node.daemon.meeting import Meeting, check_peers
from decaf_node.daemon.monitor import MonitorService
from decaf_node.daemon.operators import Operators, operators_of
from decaf_node.daemon.pace import Pace
from decaf_node.daemon.perform import Performer
from decaf_node.daemon.policies import policy_of, saved_of
from decaf_node.daemon.reloading import Reloading
from decaf_node.daemon.resources import Resources
from decaf_node.daemon.rpc import MeshService, start_server
from decaf_node.daemon.scraping import collector_of, metrics_address, send_metrics, serve_metrics
from decaf_node.daemon.security import MutualTls, only_new_tls
from decaf_node.daemon.seeds import read_seeds
from decaf_node.daemon.spool import Spool
from decaf_node.daemon.status import Status
from decaf_node.daemon.stopping import LEAVE_SECONDS, Stopping
from decaf_node.daemon.store import Store, open_store
from decaf_node.daemon.talk import Talk
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.trainer import WORKER, Retry, Trainer, command_of
from decaf_node.daemon.trust import OwnMesh, Trust, load_trust
from decaf_node.daemon.upkeep import Upkeep
from decaf_node.daemon.upload import Upload
from decaf_node.daemon.watching import Watching
from decaf_node.mesh.events import PeerLeft
from decaf_node.mesh.node import Node
from decaf_node.mesh.view import NodeView
from decaf_node.places import Places
from decaf_node.settings import Settings

log = logging.getLogger(__name__)

SERVER_GRACE_SECONDS = 0.3
LAST_ACTS_SECONDS = 0.5
SEEDS_TOLD = 8
ACCOUNT = "privacy.json"  # in the state folder; the trainer writes it
HANDOVER = "handover"  # in the runtime folder


def run(
    settings: Settings,
    reread: Callable[[], Settings],
    places: Places,
    worker: Sequence[str] = WORKER,
    insecure: bool = False,
) -> None:
    """Be a node until SIGTERM, SIGINT, ``Leave`` or an error.

    reread:   reads the settings again, for SIGHUP and ``Reload``
    worker:   what Python runs as the trainer, before ``--socket PATH``
    insecure: speak in plaintext on this machine, whatever the settings say

    Raises DecafError for what a person should know.
    """
    plaintext = insecure or settings.security.insecure
    only_new_tls()
    logs.configure(settings.log.level, settings.log.format)
    check_peers(settings.mesh.peers)
    operators_of(settings, plaintext)
    metrics_address(settings)
    collector_of(settings)
    if plaintext and not check_plaintext(settings.listen.address, settings.security.insecure):
        log.warning("Listening on %s in plaintext: anyone on this network can read and join.", settings.listen.address)
    with disk_errors(places.runtime):
        make_folder(places.runtime)
        refuse_shared(places.runtime)
    service.notify(service.status("reading the saved state"))
    with closing(open_store(places.state, settings.mesh.name, settings.store)) as store:
        trust = load_trust(places.state / "identity", settings.security, plaintext)
        store.check_identity(trust.node)
        spool = Spool(places.spool, settings.limits.spool_bytes)
        asyncio.run(_serve(lambda: Daemon(settings, reread, places, worker, trust, store, spool)))
    log.info("Stopped.")


async def _serve(make: Callable[[], Daemon]) -> None:
    daemon = make()  # its parts belong to the running loop
    async with AsyncExitStack() as stack:
        await daemon.start(stack)
        try:
            await daemon.wait()
        finally:
            await daemon.leave()


class Daemon:
    """All parts of a running node."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        places: Places,
        worker: Sequence[str],
        trust: Trust,
        store: Store,
        spool: Spool,
    ) -> None:
        self._settings = settings
        self._places = places
        name = settings.node.name or socket.gethostname()
        limits = settings.limits
        saved = store.saved()
        before = None if saved is None else saved_of(saved, store, spool)
        policy = policy_of(settings)
        if saved is not None and before is not None and before.absent > policy.adopt_after:
            spool.keep(saved.snapshot)  # what we have learned since is told from it, however long the mesh is not met
        node = Node(trust.node, policy, random.Random(os.urandom(16)), before)  # noqa: S311 - for pauses and draws, not for secrets
        self.tasks = Tasks()
        self.trust = trust
        self.me = Me(trust.node, name, settings.mesh.name, round=saved.round if saved else 0)
        self.me.shares_loss = settings.privacy.share_metrics
        self.me.shares_labels = settings.privacy.share_labels
        self.driver = Driver(node, limits.events)
        self.dialler = Dialler(
            self.me.introduction,
            self.driver.news,
            limits.redial_backoff,
            limits.peers,
            trust.tls,
            self._met,
            self._turned_away,
        )
        self.host = Host(
            self.me,
            store,
            spool,
            self.driver.post,
            self.dialler.name,
            limits.chunk_bytes,
            self.tasks,
            limits.least_rate_bytes,
            limits.peers,
            Upload(limits.upload_bytes_per_second),
        )
        self.upkeep = Upkeep(self.me, trust, self.host.problems, self._put_out)
        self.edges = Edges(self.me.node, self.dialler, self.host, self.tasks, limits.streams)
        self.meeting = Meeting(self.me, self.dialler, self.driver.post, self.driver.greet, self.tasks, self.host.said)
        self.history = History()
        welcome = link.Welcome(
            self.me.node,
            name,
            settings.model_dump(mode="json"),
            str(places.spool.absolute()),
            str(places.state / ACCOUNT),
        )
        self.link = LinkServer(places.trainer_socket, limits.link_bytes, welcome, self._heard, self._lost)
        self.trainer = Trainer(
            self.link,
            places.trainer_socket,
            store.scratch,
            command_of(settings.training, worker),
            Retry(limits.trainer_restarts, limits.trainer_backoff, limits.trainer_silence),
            lambda: self.talk.working(self.driver.view().phase),
        )
        self.talk = Talk(
            self.host,
            self.link,
            self.trainer,
            self.history,
            RoundLines(settings.round.evaluate_every, self.host.title),
            node.needed,
            saved.snapshot if saved else None,
            Handover(places.runtime / HANDOVER, spool),
            self._ready,
            self.tasks,
            lambda row: self.watching.mixed(row),
            self._introduce,
        )
        self.performer = Performer(self.host, self.talk, self.edges, self.dialler, self.tasks)
        self.introducing = Introducing(self.me.introduction, self._hello, self.tasks)
        own = trust if isinstance(trust, OwnMesh) else None
        self.enrolment = None if own is None else self._enrolment_of(own)
        self.gate = Gate(own, self.enrolment, self.dialler)
        self.figures = Figures()
        self.holds = Holds(self.driver.post_and_wait)
        self.resources = Resources(
            settings.resources, self.figures, self.holds, self.host.problems, lambda: self.trainer.pid
        )
        self.alerts = Alerts(self.host, lambda: self.trainer.restarts, policy.exchange)
        self.status = Status(
            self.host,
            self.driver,
            self.talk,
            self.trainer,
            self.history,
            self.alerts,
            policy.topology,
            self.figures,
            self.holds,
        )
        self.watching = Watching(self.status, self.me.instance)
        self.health = Health(lambda: self.talk.ready is not None and self.me.address != "")
        self._peer_lines = PeerLines(self.host.title)
        self._operators: Operators | None = None
        live = live_settings(self.meeting, self.me, self.resources, lambda: self._operators, self._introduce)
        self.reloading = Reloading(settings, reread, trust, self.host.problems, live)
        self.stopping = Stopping(self.driver, self.tasks, limits.stop)
        self.acts = Acts(self.driver, self.talk, store, self.stopping.leave, self.reloading.reload)
        self._discovery: Discovery | None = None
        self._running: list[asyncio.Task[None]] = []

    async def start(self, stack: AsyncExitStack) -> None:
        """Bring everything up; ``stack`` takes it down again, in the opposite order."""
        stack.callback(self.host.close)
        acting = ControlService(self.driver, self.holds, self.gate, self.acts)
        services = MonitorService(self.status, self.watching), acting, self.health
        control = await start_control(self._places.control_socket.absolute(), *services)
        stack.push_async_callback(self._end_server, control)
        stack.callback(self._places.control_socket.unlink, True)
        if self._settings.monitor.listen:
            assert isinstance(self.trust.tls, MutualTls), "``run`` looks"
            may_act = operators_of(self._settings, False)
            self._operators = Operators(self.trust.tls, may_act, Pace(self._settings.limits.calls))
            remote = await start_remote(self._settings.monitor.listen, self.trust.tls, self._operators, *services)
            stack.push_async_callback(self._end_server, remote)
        server, port = await start_server(
            MeshService(
                self.me.introduction,
                self.edges,
                self.meeting,
                self.trust.tls,
                self.upkeep,
                Pace(self._settings.limits.calls),
            ),
            self._settings.listen,
            self._settings.limits,
            self.trust.tls,
        )
        stack.push_async_callback(self._end_server, server)
        self.me.address = join(self._settings.listen.address, port)
        await self.link.start()
        stack.push_async_callback(self.link.close)
        stack.push_async_callback(self.dialler.close)
        stack.push_async_callback(self.tasks.cancel)
        if (metrics := serve_metrics(self._settings, self.status, self.trust.tls)) is not None:
            stack.push_async_callback(metrics.close)
        if (page := serve_dashboard(self._settings, self._places.control_socket)) is not None:
            stack.push_async_callback(page.close)
        self.figures.start()
        stack.callback(self.figures.stop)
        if (sender := send_metrics(self._settings, self.status, self.trust.tls)) is not None:
            stack.callback(sender.close)
        self._start_looking(port)
        stack.push_async_callback(self._end_running)
        self.stopping.take_signals()
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: self.tasks.spawn(self.reloading.reload_quietly())
        )
        say_who(self.me, self._places, self.trainer.external)
        service.notify("READY=1", service.status(self._at_a_glance()))
        if service.is_told():
            self._run(service.keep_told(self._at_a_glance))

    async def wait(self) -> None:
        """Return when the node has stopped, or must; raise what has ended it otherwise."""
        ends: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(self.performer.stopped.wait()),
            asyncio.ensure_future(self.stopping.hurry.wait()),
            self.tasks.failed,
        }
        ended, _ = await asyncio.wait({*ends, *self._running}, return_when=asyncio.FIRST_COMPLETED)
        for end in ends - ended:
            end.cancel()
        for end in ended:
            end.result()

    async def leave(self) -> None:
        """Say goodbye, and let the trainer end: as long as the stop may take, but not long after an error."""
        now = asyncio.get_running_loop().time()
        end = self.stopping.end(now)
        self.trainer.stop()
        if self.talk.ready is None:
            self._trainer_task.cancel()  # it is being loaded, would not hear of it before, and has nothing to save
        ends = [self.performer.goodbye(LAST_ACTS_SECONDS), self.edges.close_all()]
        if self._discovery is not None:
            ends.append(self._discovery.close())
        running = {self.tasks.spawn(end) for end in ends}
        await asyncio.wait(running, timeout=LEAVE_SECONDS / 2)
        self.stopping.goodbye.set_result(self.performer.told)
        await asyncio.wait({self._trainer_task}, timeout=end - now - LEAVE_SECONDS / 2 - 2 * SERVER_GRACE_SECONDS)

    # --- starting ----------------------------------------------------------------------------------------------------

    def _start_looking(self, port: int) -> None:
        """Run the machine and the trainer, and look for the others."""
        self._run(self.driver.run(self.performer.perform, self._watch))
        self._trainer_task = self._run(self.trainer.run())
        self._run(self.upkeep.run())
        self._run(self.watching.run())
        self._run(self.alerts.run())
        self._run(self.resources.run())
        if self.enrolment is not None:
            self._run(self.enrolment.run())
        seeds = read_seeds(self._places.state / "members")
        self.meeting.dial(tuple(dict.fromkeys((*self._settings.mesh.peers, *seeds))))
        self._discovery = Discovery(
            self.me.node,
            self.me.name,
            self.me.mesh,
            port,
            self._settings.discovery,
            self.meeting.found,
            self.meeting.left,
            self._settings.listen.address,
            self._warn,
        )
        self.tasks.spawn(self._discovery.start())

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.append(task)
        return task

    def _at_a_glance(self) -> str:
        return service.in_a_line(self.status.status(), self.status.alerts(self.status.view()))

    # --- what the parts tell each other ------------------------------------------------------------------------------

    def _watch(self, view: NodeView) -> None:
        self._peer_lines.watch(view)
        self.watching.look(view)

    def _warn(self, reason: str, message: str) -> None:
        log.warning("%s", message, extra=logs.fields(reason=reason))

    async def _heard(self, message: link.Message) -> None:
        await self.talk.hear(message)

    async def _lost(self, cause: str) -> None:
        await self.talk.lost(cause)

    def _enrolment_of(self, own: OwnMesh) -> Enrolment:
        return Enrolment(
            own, self._settings, self._addresses, lambda: self.talk.ready, self._enrolment_opened, self.host.problems
        )

    def _addresses(self) -> list[str]:
        """Return addresses of members for one that joins: this node's, and those of the peers met last."""
        port = split(self.me.address)
        assert port is not None, "it listens before anyone can join"
        own = [join(host, port[1]) for host in reached_at(self._settings)]
        others = (self.dialler.best(peer) for peer in self.dialler.met_last(SEEDS_TOLD))
        return own + [address for address in others if address is not None]

    def _enrolment_opened(self, port: int) -> None:
        if self._discovery is not None:
            self.tasks.spawn(self._discovery.expect(port))

    async def _met(self, address: str, way: Way, answer: Answer) -> None:
        self.host.said.heard(answer.who)
        await self.upkeep.met(address, way, answer)

    def _introduce(self) -> None:
        if not self.stopping.begun:  # the goodbye is the last that neighbours are to hear
            graph, _ = self.driver.graph()
            self.introducing.to(graph.candidates(self.me.node))

    async def _hello(self, peer: str) -> bool:
        return not await self.performer.hello(peer, self.driver.news())

    def _turned_away(self, address: str, why: str) -> None:
        self.upkeep.turned_away(address, why)

    def _put_out(self, peer: str) -> None:
        """The peer was revoked: the machine ends its stream, and the way to it is forgotten."""
        self.dialler.forget(peer)
        self.host.said.forget(peer)
        self.tasks.spawn(self.driver.post(PeerLeft(peer)))

    async def _ready(self, schema: str) -> None:
        if self._discovery is not None:
            await self._discovery.announce(schema)

    # --- ending ------------------------------------------------------------------------------------------------------

    async def _end_running(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)

    async def _end_server(self, server: grpc.aio.Server) -> None:
        await server.stop(SERVER_GRACE_SECONDS)
