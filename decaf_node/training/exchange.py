"""What a trainer does with snapshots: publish its own, look at a neighbour's, mix, adopt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from decaf_node.errors import BadData, DecafError
from decaf_node.link import File, MixEdge, SnapshotInspected
from decaf_node.lowrank.adapter import (
    Adapter,
    common_distance,
    factor_distance,
    factor_norm,
    is_finite,
    medoid,
    norm,
    plain_distance,
    plain_norm,
)
from decaf_node.lowrank.codec import DTYPES
from decaf_node.lowrank.mixing import AdapterEdge, MixedAdapter, adopt, adopt_factors, mix_adapters, mix_factors
from decaf_node.settings import Settings
from decaf_node.training.held_out import HeldOut, Loss
from decaf_node.training.live import LiveAdapter
from decaf_node.training.spool import fetch, publish


def nothing() -> None:
    """Do nothing before a snapshot leaves."""


@dataclass(frozen=True)
class Identity:
    """What goes into each snapshot's header."""

    schema: str
    base: str


@dataclass(frozen=True)
class Published:
    """Our last snapshot. current: the model still is what it holds, bit for bit."""

    digest: str
    current: bool


class Exchange:
    """A live adapter and its snapshots in the spool. loss: of held-out examples, where neighbours are to be scored."""

    def __init__(
        self,
        live: LiveAdapter,
        spool: Path,
        settings: Settings,
        identity: Identity,
        before_leaving: Callable[[], None] = nothing,
        loss: Loss | None = None,
    ) -> None:
        """before_leaving: called before a snapshot is written that may leave the node; if it raises, none is."""
        self._live = live
        self._spool = spool
        self._algorithm = settings.round.algorithm
        self._mixing = settings.mixing
        self._limit_bytes = settings.limits.snapshot_bytes
        self._identity = identity
        self._before_leaving = before_leaving
        self._held_out = None if loss is None else HeldOut(live, loss)
        self._published: Published | None = None

    def publish(self, round: int, trained: bool = True) -> tuple[File, int]:
        """Write the adapter as it is now into the spool; return the file and the adapter's rank.

        trained: since the last one. If not, what goes in compact goes in int8: its error is another in each round, and
        would never be trained away.

        Raises BadData if a number in it is not finite: then nothing is written. Raises TryAgain if the disk is full.
        """
        adapter = self._live.read()
        if not is_finite(adapter):
            raise BadData(
                "training.factors-not-finite",
                f"The adapter is not finite after round {round}; lower the learning rate or look at the data.",
            )
        self._before_leaving()
        wire, identity = self._mixing.wire, self._identity
        if wire == "compact" and not trained:
            wire = "int8"
        file = publish(self._spool, adapter, wire=wire, schema=identity.schema, base=identity.base, round=round)
        self._published = Published(file.digest, current=_holds(adapter, DTYPES[wire]))
        return file, self._live.rank

    def trained(self) -> None:
        """The model has taken a step: it is not what was published any more."""
        if self._published is not None and self._published.current:
            self._published = replace(self._published, current=False)

    def inspect(self, snapshot: File, own: File) -> SnapshotInspected:
        """Look at a neighbour's snapshot: is it finite, can it be mixed, and how far is it from ``own``?"""
        try:
            theirs = self._theirs(snapshot)
            if not is_finite(theirs):
                return SnapshotInspected(snapshot.digest, False, 0.0, 0.0, "it holds numbers that are not finite")
            ours = self._fetch(own)
            compared = self._compare(snapshot.digest, theirs, ours)
            if self._held_out is None:
                return compared
            half = self._mixed(ours, [AdapterEdge(ours, theirs, 0.5)])
            return replace(compared, harm=self._held_out.harm(own.digest, ours, half.adapter))
        except DecafError as error:
            return SnapshotInspected(snapshot.digest, False, 0.0, 0.0, error.message)

    def _compare(self, digest: str, theirs: Adapter, ours: Adapter) -> SnapshotInspected:
        """Measure how far ``theirs`` is, in what is mixed. Raises BadData where a mix of factors would."""
        apart, size = common_distance, norm
        if self._algorithm != "decaf":
            theirs = self._mixed(ours, [AdapterEdge(ours, theirs, 1.0)]).adapter
        if self._algorithm == "dlora":  # one product has factors of any size: B times 1000 and A through 1000
            apart, size = factor_distance, factor_norm
        return SnapshotInspected(
            digest,
            True,
            apart(theirs, ours),
            size(ours),
            plain_distance=plain_distance(theirs, ours),
            plain_norm=plain_norm(ours),
        )

    def mix(self, edges: Sequence[MixEdge]) -> MixedAdapter:
        """Load ``now + sum(w * (theirs - own))`` into the model. Raises BadData if a snapshot does not fit."""
        now = self._live.read()
        if not edges:
            return MixedAdapter(now, tail=0.0, interference=0.0, norm=norm(now))
        own = {file.digest: self._own(file, now) for file in {edge.own for edge in edges}}  # one object, one term
        pairs = [AdapterEdge(own[edge.own.digest], self._theirs(edge.theirs), edge.weight) for edge in edges]
        mixed = self._mixed(now, pairs)
        self._live.load(mixed.adapter)
        self.trained()
        return mixed

    def adopt(self, candidates: Sequence[File], base: File | None) -> tuple[File, int]:
        """Load the medoid of ``candidates`` plus our own change since ``base``; return it and its round."""
        fetched = [fetch(file, self._live.device, self._limit_bytes) for file in candidates]
        chosen = medoid([adapter for _, adapter in fetched])
        header, adapter = fetched[chosen]
        before = None if base is None else self._fetch(base)
        if self._algorithm == "decaf":
            adopted = adopt(adapter, self._live.read(), before, memory_bytes=self._mixing.memory_bytes)
        else:
            adopted = adopt_factors(adapter, self._live.read(), before, frozen_a=self._algorithm == "dlora-fa")
        self._live.load(adopted)
        self.trained()
        return candidates[chosen], header.round

    def _mixed(self, now: Adapter, pairs: Sequence[AdapterEdge]) -> MixedAdapter:
        if self._algorithm == "decaf":
            return mix_adapters(now, pairs, memory_bytes=self._mixing.memory_bytes)
        return mix_factors(now, pairs, frozen_a=self._algorithm == "dlora-fa")

    def _own(self, file: File, now: Adapter) -> Adapter:
        """Return what an edge pairs: ``now`` itself where it is that, so that the mix sees that they cancel."""
        if self._published == Published(file.digest, current=True):
            return now
        return self._fetch(file)

    def _theirs(self, file: File) -> Adapter:
        return fetch(file, self._live.device, self._limit_bytes)[1]

    def _fetch(self, file: File) -> Adapter:
        return fetch(file, self._live.device)[1]


def _holds(adapter: Adapter, dtype: torch.dtype) -> bool:
    """Does a file in ``dtype`` hold every number of the adapter as it is?"""
    tensors = [*adapter.tensors.values()]
    tensors += [factor for product in adapter.products.values() for factor in (product.a, product.b)]
    return all(tensor.dtype == dtype for tensor in tensors)
