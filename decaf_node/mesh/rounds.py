"""The rounds of a node: train, exchange, mix, save; newcomers adopt in between; and how all of it ends.

One method an event; each matches on the phase. An event that does not fit the phase is late or a duplicate and
changes nothing. ``due`` takes the steps that time or completed edges allow; it is called after every event.

Decided here, where the design leaves it open:
- round numbers never go back while the node runs: after a crash of the trainer the round that was not mixed is
  trained again under its number, from the last saved state, and edges mixed since that save are mixed again;
- the last of ``policy.limit`` rounds pauses the trainer when it has published, so that it takes no step of another
  round; its mix waits for promised edges up to the ceiling, since no later mix could count them; then every new edge
  is refused with ``mesh.done``, while newcomers are still served;
- what a node trained, published and mixed with nobody while it was alone is a round like any other;
- a newcomer adopts only between its publishing and its mix, when nothing of the round is half done.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from decaf_node.mesh import adoption, objections
from decaf_node.mesh import events as ev
from decaf_node.mesh.deadlines import Deadlines
from decaf_node.mesh.edges import Edges
from decaf_node.mesh.events import Edge, Effect, Offer, Saved, Snapshot
from decaf_node.mesh.joining import Joining, StreamEvent
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.objections import Refusal
from decaf_node.mesh.phases import (
    Adopting,
    Done,
    Exchanging,
    Inner,
    Mixing,
    Saving,
    Starting,
    Stopped,
    Stopping,
    Training,
    digests_of,
)
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.waiting import Waiting

SAVE_AGAIN = 30.0  # seconds, where no further round will try
UNSAVED_AT_MOST = 2  # times policy.unsaved_receipts: then no edge begins before a save has worked


class Rounds:
    """Holds the phase (without the pause, which is kept beside it) and all that lives from round to round."""

    def __init__(
        self,
        policy: Policy,
        members: Membership,
        edges: Edges,
        deadlines: Deadlines,
        random: Random,
        saved: Saved | None,
    ) -> None:
        self.completed = 0 if saved is None else saved.round
        self.saved_round = None if saved is None else saved.round
        self.mixes = 0 if saved is None else saved.mixes
        self.absent = saved is not None and saved.absent > policy.adopt_after
        self.phase: Inner = Starting(self.completed + 1)
        self.paused = False
        self.base = saved.snapshot.digest if saved is not None and self.absent and saved.mixes else None
        self._saved_at: float | None = None
        self._awaited: tuple[tuple[str, float], ...] = ()
        self._resting = False  # the trainer was told to take no step of another round
        self._policy = policy
        self._members = members
        self._edges = edges
        self._deadlines = deadlines
        self._waiting = Waiting(policy, members, edges)
        self._joining = Joining(policy, members, edges, random)
        edges.schema = "" if saved is None else saved.schema
        self._show_mixes()

    # --- the trainer ---------------------------------------------------------------------------------------------

    def trainer_started(self, event: ev.TrainerStarted, now: float) -> list[Effect]:
        """A trainer waits for work. One that comes unannounced stands in for another that was lost."""
        if self._edges.schema not in ("", event.schema):
            return [objections.trainer_of_other_schema(event.schema, self._edges.schema)]
        lost = [] if isinstance(self.phase, Starting) else self.trainer_lost()
        if not isinstance(self.phase, Starting):
            return lost
        self._edges.schema, self._edges.trainer = event.schema, True
        if self._is_last(self.completed) and self._is_last(self.saved_round or 0):
            self.phase, self._resting = Done(self.completed), True
            return [*lost, *self._edges.shut(objections.DONE, now, serve=True)]
        self.phase = Training(self._numbered(self.phase.round))
        self._deadlines.started(now)
        start = ev.StartTraining(self.phase.round, resume=self.saved_round is not None)
        pause: list[Effect] = [ev.PauseTraining()] if self.paused else []
        return [*lost, start, *pause, *self._edges.inspect_again()]

    def trainer_lost(self) -> list[Effect]:
        """The trainer's state is lost back to the last save; promises stay, and are mixed again."""
        effects: list[Effect] = []
        mixing: tuple[Edge, ...] = ()
        match self.phase:
            case Starting() | Stopped():
                return []
            case Stopping():
                return self._stopped()
            case Done(retry=None):
                self._edges.trainer = False
                return []
            case Training(round) | Exchanging(round):
                again = round
            case Mixing(round, mixing):
                again = round
            case Adopting(round):
                again = round
                effects = self._joining.end(self.phase)
            case Saving(round) | Done(round):
                again = round + 1
        self._edges.trainer = False
        self._edges.ledger.lost(mixing)
        if self._edges.published is not None:
            self._edges.published.retire()
        self._resting = False
        self.phase = Starting(self._numbered(again))
        return effects

    def round_trained(self, event: ev.RoundTrained, now: float) -> list[Effect]:
        """The trainer has published. While a save is under way this waits for its end."""
        match self.phase:
            case Training():
                return self._publish(event.snapshot, now)
            case Saving(trained=None) if not self._is_last(self.phase.round):
                self.phase = replace(self.phase, trained=event.snapshot)
        return []

    def round_mixed(self, event: ev.RoundMixed, now: float) -> list[Effect]:
        """The mix is loaded: count it, and save if a save is due."""
        match self.phase:
            case Mixing(round, edges) if round == event.round:
                self._count(round, edges)
                return self._save(round) if self._save_is_due(round, now) else self._go_on(round, now)
            case Stopping(round, mixing) if mixing is not None and round == event.round:
                self._count(round, mixing)
                self.phase = Stopping(round)
                return [self._save_effect(round)]
        return []

    def round_saved(self, event: ev.RoundSaved, now: float) -> list[Effect]:
        """The state is durable."""
        match self.phase:
            case Saving(round) | Stopping(round, None) if round == event.round:
                self._note_saved(round, now)
                return self._stopped() if isinstance(self.phase, Stopping) else self._go_on(round, now)
            case Starting() if event.round == self.completed:
                self._note_saved(event.round, now)  # the trainer was lost after it had written all
        return []

    def save_failed(self, event: ev.SaveFailed, now: float) -> list[Effect]:
        """Say so and go on; it is tried again after the next round."""
        match self.phase:
            case Saving(round) if round == event.round:
                return [objections.save_failed(event), *self._go_on(round, now)]
            case Stopping(round, None) if round == event.round:
                return [objections.save_failed(event), *self._stopped()]
        return []

    def state_adopted(self, event: ev.StateAdopted, now: float) -> list[Effect]:
        """The trainer works on the mesh's state, which is ahead of ours: so is the round now."""
        match self.phase:
            case Adopting(round, chosen_from=chosen_from) if chosen_from:
                self.mixes, self.absent = max(self.mixes, 1), False
                self._show_mixes()
                ahead = [ask.round for ask in chosen_from if ask.digest == event.chosen]
                return self._mix(max([round, *ahead]), now)
            case Stopping():  # it was under way when the stop was asked for, and the mix came after it
                self.mixes, self.absent = max(self.mixes, 1), False
        return []

    # --- streams ---------------------------------------------------------------------------------------------

    def asks(self, peer: str) -> bool:
        """Say whether the stream with the peer is one on which we ask for its state, as a newcomer."""
        if not isinstance(self.phase, Adopting) or self.phase.chosen_from:
            return False
        ask = adoption.find(self.phase.asks, peer)
        return ask is not None and ask.pending

    def join(self, event: StreamEvent, now: float) -> list[Effect]:
        """Something happened on such a stream."""
        assert isinstance(self.phase, Adopting)
        self.phase, effects = self._joining.take(self.phase, event, now)
        return effects

    def offered(self, event: ev.OfferReceived, now: float) -> list[Effect]:
        """An offer came: is it to be taken at all, and does it show that we are a newcomer?"""
        peer, offer, incoming = event.peer, event.offer, event.incoming
        if incoming:
            self._edges.drop(peer)  # its new stream takes the place of the old; a promise on that may still count
        elif not self._edges.is_open(peer):
            return []
        if (refusal := self._gate(offer)) is not None:
            return (self._edges.turn_away if incoming else self._edges.refuse)(peer, refusal, now)
        ours = self._edges.ours("" if incoming else peer)  # both ends judge by the same two offers
        if ours is not None and not offer.adopt and adoption.must_adopt(ours, offer, self.absent):
            return self._meet(peer, offer, incoming, now)
        return self._edges.offered(peer, offer, incoming, now)

    def _meet(self, peer: str, offer: Offer, incoming: bool, now: float) -> list[Effect]:
        """We are a newcomer to this peer's mesh: adopt if we stand between publishing and mix."""
        if isinstance(self.phase, Exchanging):
            self.phase, effects = self._joining.begin(self.phase.round, {peer: (offer, incoming)}, now)
            return effects
        if incoming:
            self._edges.hold(peer, offer)
            return []
        self._edges.broken(peer, now)
        return [ev.CloseEdge(peer)]

    def _gate(self, offer: Offer) -> Refusal | None:
        """Return why no edge is wanted now, whatever the offer."""
        match self.phase:
            case Stopping() | Stopped():
                return objections.STOPPING
            case _ if self.paused:
                return objections.PAUSED
            case _ if not self._policy.exchange:
                return objections.NO_EXCHANGE
            case Adopting():
                return objections.ADOPTING
            case Mixing(round) | Saving(round) | Done(round) if self._is_last(round) and not offer.adopt:
                return objections.DONE
        return objections.CANNOT_SAVE if self._cannot_save and not offer.adopt else None

    # --- the operator ----------------------------------------------------------------------------------------

    def pause(self, now: float) -> list[Effect]:
        """Stand still, and refuse edges; what is promised comes to its end."""
        if self.paused or isinstance(self.phase, Stopping | Stopped):
            return []
        self.paused = True
        effects = self._edges.shut(objections.PAUSED, now, serve=False)
        if isinstance(self.phase, Adopting) and not self.phase.chosen_from:
            effects += self._stop_joining(self.phase)
        at_work = self._edges.trainer and not self._resting
        return [*effects, ev.PauseTraining()] if at_work else effects

    def resume(self) -> list[Effect]:
        """Go on."""
        if not self.paused:
            return []
        self.paused = False
        return [ev.ResumeTraining()] if self._edges.trainer and not self._resting else []

    @property
    def next_mix(self) -> int | None:
        """The round that is mixed next, when its local steps are over; None where none is to be."""
        match self.phase:
            case _ if self.paused:
                return None
            case Training(round) | Exchanging(round) | Mixing(round):
                return round
            case Saving(round) if not self._is_last(round):
                return round + 1
        return None

    def end_steps(self) -> list[Effect]:
        """End the local steps under way; while a round is exchanged or mixed there are none, or they are the next's."""
        match self.phase:
            case _ if self.paused:
                return []
            case Training(round):
                return [ev.EndRound(round)]
            case Saving(round, trained=None) if not self._is_last(round):
                return [ev.EndRound(round + 1)]
        return []

    def stop(self, now: float) -> list[Effect]:
        """Mix what is complete, save, and stop. Without a trainer there is nothing left to save."""
        if isinstance(self.phase, Stopping | Stopped):
            return []
        self.paused = False
        effects = self._edges.shut(objections.STOPPING, now, serve=False)
        match self.phase:
            case Starting() | Done(retry=None):
                return [*effects, *self._stopped()]
            case Training():
                self.phase = Stopping(self.completed)
                return [*effects, self._save_effect(self.completed)]
            case Done(round):
                self.phase = Stopping(round)
                return [*effects, self._save_effect(round)]
            case Saving(round):
                self.phase = Stopping(round)
                return effects
            case Mixing(round, mixing):
                self.phase = Stopping(round, mixing)
                return effects
            case Adopting():
                effects += self._joining.end(self.phase)
        mixing = self._edges.ledger.take()
        self.phase = Stopping(self.phase.round, mixing)
        return [*effects, ev.MixRound(self.phase.round, mixing)]

    # --- steps -----------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Effect]:
        """Take the steps that time or complete edges allow, and open what is to be opened."""
        effects: list[Effect] = []
        if isinstance(self.phase, Adopting):
            effects += self._choose(self.phase, now)
        if isinstance(self.phase, Done) and self.phase.retry is not None and self.phase.retry <= now:
            effects += self._save(self.phase.round)
        if self._may_open():
            effects += self._edges.due(now)
        if isinstance(self.phase, Exchanging):
            self._awaited = self.awaited(now)
            if not self._awaited:
                self._waiting.learn(now)
                effects += self._mix(self.phase.round, now)
        return effects

    def deadline(self, now: float) -> float | None:
        """When ``due``, which was called with the same ``now``, has something next."""
        times = [until for _, until in self._awaited] if isinstance(self.phase, Exchanging) else []
        match self.phase:
            case Adopting(_, until, at_last, chosen_from=()):
                times += [time for time in (until, at_last) if time > now]
            case Done(retry=retry) if retry is not None:
                times.append(retry)
        if self._may_open() and (opening := self._edges.opening) is not None:
            times.append(opening)
        return min(times, default=None)

    def needed(self) -> frozenset[str]:
        """Return the snapshots that the trainer has been given, or may be as a newcomer's."""
        base = {self.base} if self.base is not None else set()
        return frozenset(base | digests_of(self.phase))

    def awaited(self, now: float) -> tuple[tuple[str, float], ...]:
        """Return the peers whose edges the mix of this round waits for, with their deadlines."""
        return self._waiting.awaited(now, last=self._is_last(self.phase.round))

    def _publish(self, snapshot: Snapshot, now: float) -> list[Effect]:
        round = max(self.phase.round, snapshot.round)
        alone = self.paused or not self._policy.exchange or self._cannot_save
        self._deadlines.trained(now)
        self._edges.publish(snapshot, alone, now)
        self.phase = Exchanging(round)
        effects = self._rest(round)
        if self._cannot_save:
            effects += self._edges.shut(objections.CANNOT_SAVE, now, serve=True)
        met = self._members_ahead()
        effects += self._edges.renew(now, again=not met)
        if not met:
            return effects + self._edges.answer_held(now)
        self.phase, more = self._joining.begin(round, met, now)
        return effects + more

    def _members_ahead(self) -> dict[str, tuple[Offer, bool]]:
        """Return the held offers that show us to be a newcomer."""
        ours = self._edges.ours()
        assert ours is not None
        held = self._edges.held()
        return {peer: (offer, True) for peer, offer in held.items() if adoption.must_adopt(ours, offer, self.absent)}

    def _rest(self, round: int) -> list[Effect]:
        """Keep the trainer from another round after the last one."""
        if not self._is_last(round) or self._resting:
            return []
        self._resting = True
        return [ev.PauseTraining()]

    def _choose(self, phase: Adopting, now: float) -> list[Effect]:
        """Adopt when enough snapshots are here; go on as we are where there are none."""
        if phase.chosen_from or not adoption.settled(phase.asks, phase.until, phase.at_last, now):
            return []
        candidates = adoption.ready(phase.asks)
        if not candidates:
            return self._stop_joining(phase)
        effects = self._joining.end(phase)
        self.phase = replace(phase, chosen_from=candidates)
        return [*effects, ev.AdoptState(tuple(ask.digest for ask in candidates), self.base)]

    def _stop_joining(self, phase: Adopting) -> list[Effect]:
        self.phase = Exchanging(phase.round)
        return self._joining.end(phase)

    def _mix(self, round: int, now: float) -> list[Effect]:
        effects = self._rest(round)
        if self._is_last(round):
            effects += self._edges.shut(objections.DONE, now, serve=True)
        edges = self._edges.ledger.take()
        self._deadlines.mixed(now)
        self.phase = Mixing(round, edges)
        return [*effects, ev.MixRound(round, edges)]

    def _count(self, round: int, edges: tuple[Edge, ...]) -> None:
        self.completed = round
        self._edges.ledger.mixed(edges)
        for edge in edges:
            self._members.mixed(edge.peer, edge.weight)
        if edges:
            self.mixes += 1
            self.absent = False
        self._show_mixes()

    def _save_is_due(self, round: int, now: float) -> bool:
        return (
            self._is_last(round)
            or self._saved_at is None
            or now - self._saved_at >= self._policy.save_every
            or self._edges.ledger.size >= self._policy.unsaved_receipts
            or self._unsaved_bytes() >= self._policy.unsaved_bytes
        )

    def _unsaved_bytes(self) -> int:
        """Return how large the snapshots are that would be free after a save, if all are as large as ours."""
        published, edges = self._edges.published, self._edges.ledger.unsaved
        digests = {digest for edge in edges for digest in (edge.own, edge.theirs)}
        return 0 if published is None else len(digests) * published.snapshot.size_bytes

    def _save(self, round: int) -> list[Effect]:
        self.phase = Saving(round)
        return [self._save_effect(round)]

    def _save_effect(self, round: int) -> Effect:
        published = self._edges.published
        current = "" if published is None else published.snapshot.digest
        return ev.SaveRound(round, self.mixes, self._edges.ledger.begin_save(current), self._edges.unheard.edges())

    def _note_saved(self, round: int, now: float) -> None:
        self._edges.ledger.saved()
        self.saved_round = round
        self._saved_at = now

    def _go_on(self, round: int, now: float) -> list[Effect]:
        """The round is over: begin the next, or be done."""
        trained = self.phase.trained if isinstance(self.phase, Saving) else None
        if self._is_last(round):
            saved = self.saved_round == round
            self.phase = Done(round, retry=None if saved else now + SAVE_AGAIN)
            return self._edges.close_promised()
        self.phase = Training(round + 1)
        return [] if trained is None else self._publish(trained, now)

    def _stopped(self) -> list[Effect]:
        self.phase = Stopped(self.phase.round)
        self._edges.trainer = False
        return [*self._edges.close_all(), ev.StopTraining()]

    def _may_open(self) -> bool:
        if self.paused or not self._policy.exchange or self._cannot_save:
            return False
        match self.phase:
            case Training() | Exchanging():
                return True
            case Mixing(round) | Saving(round):
                return not self._is_last(round)
        return False

    @property
    def _cannot_save(self) -> bool:
        return self._edges.ledger.size >= UNSAVED_AT_MOST * self._policy.unsaved_receipts

    def _is_last(self, round: int) -> bool:
        return 0 < self._policy.limit <= round

    def _numbered(self, round: int) -> int:
        """Return the number of the round to train: past the saved one, within the limit, and never going back."""
        number = max(round, (self.saved_round or 0) + 1)
        return min(number, max(self._policy.limit, self.phase.round)) if self._policy.limit else number

    def _show_mixes(self) -> None:
        self._edges.mixes = adoption.shown_mixes(self.mixes, self.completed, self.absent)
