"""Effects become calls; what comes of them comes back as events."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from decaf_node.daemon.dial import Dialler
from decaf_node.daemon.edges import Edges
from decaf_node.daemon.host import Host
from decaf_node.daemon.logs import fields, printable
from decaf_node.daemon.talk import Talk
from decaf_node.daemon.tasks import Tasks
from decaf_node.errors import DecafError, TryAgain
from decaf_node.mesh import events
from decaf_node.mesh.events import Edge, Effect, Receipt
from decaf_node.mesh.rumours import News

log = logging.getLogger(__name__)

GOODBYES_AT_MOST = 32  # neighbours are among those met last; all others hear of it within a few probe intervals


class Performer:
    """Acts on effects without waiting. ``stopped`` is set when the machine has nothing left to do.

    told: how many peers have heard the goodbye
    """

    def __init__(self, host: Host, talk: Talk, edges: Edges, dialler: Dialler, tasks: Tasks) -> None:
        self.stopped = asyncio.Event()
        self.told = 0
        self._host = host
        self._talk = talk
        self._edges = edges
        self._dialler = dialler
        self._tasks = tasks

    def perform(self, effect: Effect) -> None:
        """Act on one effect."""
        match effect:
            case events.StartTraining() | events.InspectSnapshot() | events.MixRound() | events.AdoptState():
                self._train(effect)
            case events.EndRound(round):
                self._talk.end_round(round)
            case events.SaveRound():
                self._talk.save(effect)
            case events.PauseTraining():
                self._talk.pause()
            case events.ResumeTraining():
                self._talk.resume()
            case events.StopTraining():
                self.stopped.set()
            case events.ProbePeer(peer, news):
                self._tasks.spawn(self._probe(peer, news))
            case events.SaveReceipt(peer, receipt, clip_factor):
                self._talk.clipped(peer, receipt.theirs, clip_factor)
                self._tasks.spawn(self._save_receipt(peer, receipt))
            case events.Warn(reason, message, peer):
                self._warn(reason, message, peer)
            case _:
                self._exchange(effect)

    def _train(
        self, effect: events.StartTraining | events.InspectSnapshot | events.MixRound | events.AdoptState
    ) -> None:
        match effect:
            case events.StartTraining(round, resume):
                self._host.me.round = round
                self._talk.start(round, resume)
            case events.InspectSnapshot(peer, digest, own):
                self._talk.inspect(peer, digest, own)
            case events.MixRound(round, edges):
                self._talk.mix(round, edges)
            case events.AdoptState(candidates, base):
                self._talk.adopt(candidates, base)

    def _exchange(self, effect: Effect) -> None:
        match effect:
            case events.OpenEdge(peer, offer, again):
                self._edges.open(peer, offer, again)
            case events.AnswerEdge(peer, offer):
                self._edges.answer(peer, offer)
            case events.FetchSnapshot(peer, snapshot):
                self._edges.fetch(peer, snapshot)
            case events.SendReceipt(peer, receipt):
                self._edges.send_receipt(peer, receipt)
            case events.RefuseEdge(peer, reason, message):
                self._host.refused(peer, reason, message, by_us=True)
                self._edges.refuse(peer, reason, message)
            case events.CloseEdge(peer):
                self._edges.close(peer)

    def _warn(self, reason: str, message: str, peer: str) -> None:
        sentence = f"{self._host.title(peer)}: {message}" if peer else message
        self._host.notices.say(reason, printable(sentence), peer)

    async def _probe(self, peer: str, news: News) -> None:
        if problem := await self.hello(peer, news):
            await self._host.post(events.PeerSilent(peer, problem))

    async def hello(self, peer: str, news: News) -> str:
        """Say hello; the machine hears of an answer. Return why there was none, else nothing."""
        try:
            answer = await self._dialler.hello(peer, news)
        except TryAgain as error:
            log.debug("hello to %s: %s", peer, error.message, extra=fields(peer=peer))
            return error.message
        who = answer.who
        await self._host.post(events.PeerAnswered(peer, who.name, who.schema, who.round, answer.news))
        return ""

    async def _save_receipt(self, peer: str, receipt: Receipt) -> None:
        """Keep our receipt. If the disk cannot, the edge must not count: it ends here."""
        edge = Edge(peer, receipt.own, receipt.theirs, receipt.weight)
        round = self._host.me.round
        try:
            await self._host.disk(lambda: self._host.store.save_receipt(edge, round))
        except DecafError as error:
            self._edges.close(peer)
            await self._host.post(events.EdgeBroken(peer, error.message))
        else:
            await self._host.post(events.ReceiptSaved(peer, receipt))

    async def goodbye(self, seconds: float) -> None:
        """Tell the peers around, who tell the others, that this node goes away. Who does not hear it finds out."""
        peers = self._dialler.met_last(GOODBYES_AT_MOST)
        if peers:
            await asyncio.wait([self._tasks.spawn(self._leave(peer)) for peer in peers], timeout=seconds)

    async def _leave(self, peer: str) -> None:
        with contextlib.suppress(TryAgain):
            await self._dialler.hello(peer, leaving=True)
            self.told += 1
