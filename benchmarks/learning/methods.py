"""The methods that are compared: how snapshots are mixed, and what becomes of factors and optimizer after a mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.learning.mixes import Format, of_one_rank, plus_rounded, rounded, with_near_a
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.mixing import AdapterEdge, MixedAdapter, mix_adapters, mix_factors

WAYS_STAY = 0.8
Mixing = Literal["local", "centralized", "products", "factors", "b alone"]


@dataclass(frozen=True)
class Method:
    """A way to learn together.

    moments: the optimizer's; ``kept`` as they fall, though a mix moves the factors, or begun ``anew`` after each mix
    near_a:  the mixed product is split so that A is as near to the A before the mix as can be, and B takes the rest;
             else it is split evenly, and turned near to both (``lowrank.gauge``)
    whole:   ends of other ranks are mixed as they are, and not by what both can hold (``mix_adapters``)
    exchanges: after each round's local steps; all but the first are rounds without steps
    wire:    what is sent, as in ``mixing.wire``
    momentum: each mix goes on by this part of the way that the node went in the round before (heavy ball)
    balanced: the loss weighs labels as if a node had as many examples of each: logits are raised by the logarithm of
             how frequent a label is in the node's own data (logit adjustment, arXiv 2007.07314, FedLC arXiv 2209.00189)
    absent:  where labels are balanced, those that are not here count as so many times as frequent as one that is
    to_mesh: labels weigh as in the mesh, as far as nodes agree on that (``told.agreed``), not evenly; as if each had
             heard of all others
    to_mean: the same, by the plain mean of how frequent they are at the nodes
    own_rows: rows of the head are trained only by who has examples of their label
    nesterov: steps begin where the way of the round before, gone on by this part, leads to
    quasi_global: as nesterov, but by the mean way of many rounds, the last of them weighing 1 - ``WAYS_STAY``: what
             mixing moves to and fro, as on a torus, is not gone on with (arXiv 2102.04761)
    tracking: each node makes the mesh's mean step (``tracking``); it sends twice as much
    alternating: B alone is trained in one round, A alone in the next (RoLoRA, arXiv 2409.02346; LoRA-A2, arXiv
             2410.22815; without a server TAD-LoRA, arXiv 2602.00451). B begins: while it is zero, A has no gradient.
             Both are mixed in every round: the factor that rests is not the same everywhere until it has been mixed
             often, and mixing factors is exact only then
    chebyshev: the exchanges of a round are accelerated (``mixes.chebyshev``)
    residual: what the mix cuts is kept, up to so many times the rank, and added to the next mix. It is neither sent nor
             used by the model, so it costs no bytes. Source: error feedback, as in arXiv 1901.09847
    in_use:  the model adds that residual to its base weights, so that it is the mix before the cut
    by_size: neighbours weigh by their number of examples: ``w_ij min(1, n_j / n_i)`` for Metropolis' w_ij, so that the
             mean weighed by examples stays (Hastings, 1970), and nodes come to agree on that
    by_rank: the same with ranks for numbers of examples: who can hold more weighs more
    overlap: a round's steps begin from what the node has sent, not mixed yet, and are added to the mix: the network has
             a whole round's time. (Overlap in the simulator is of its time alone.)
    server:  in place of a graph a server takes the mean of all, without a network: FedAvg (arXiv 1602.05629)
    sent_rank: only so many directions of a layer are sent, its strongest ones; 0: all
    differences: after the first snapshot, in int8 and not counted, only the way from the last one is sent, factor by
             factor. What it is rounded off by is in the next one (CHOCO, arXiv 1902.00340)
    """

    mixing: Mixing
    moments: Literal["kept", "anew"] = "kept"
    near_a: bool = False
    whole: bool = False
    exchanges: int = 1
    wire: Format = "float32"
    momentum: float = 0.0
    balanced: bool = False
    absent: float = 0.0
    own_rows: bool = False
    to_mesh: bool = False
    to_mean: bool = False
    nesterov: float = 0.0
    quasi_global: float = 0.0
    tracking: bool = False
    alternating: bool = False
    chebyshev: bool = False
    residual: int = 0
    in_use: bool = False
    by_size: bool = False
    by_rank: bool = False
    overlap: bool = False
    server: bool = False
    differences: bool = False
    sent_rank: int = 0

    @property
    def plain(self) -> bool:
        """Whether a mix is the best product of what the mesh's weights make due, and nothing else."""
        more = self.momentum or self.chebyshev or self.residual or self.by_size or self.by_rank
        return self.mixing == "products" and not more

    @property
    def of_labels(self) -> bool:
        """Say whether it looks at the labels of a classifier."""
        return self.balanced or self.absent > 0 or self.to_mesh or self.to_mean or self.own_rows

    def mix(self, now: Adapter, edges: Sequence[AdapterEdge]) -> MixedAdapter:
        if self.mixing != "products":
            return mix_factors(now, edges, frozen_a=self.mixing == "b alone")
        mixed = mix_adapters(now, [of_one_rank(edge) for edge in edges] if self.whole else edges)
        return replace(mixed, adapter=with_near_a(mixed.adapter, now)) if self.near_a else mixed

    def sent(self, adapter: Adapter, before: Adapter | None = None) -> Adapter:
        """Return what a neighbour reads of it; the same object where nothing is rounded. before: what it read last."""
        if self.sent_rank:
            adapter = Adapter({name: cut(p, self.sent_rank) for name, p in adapter.products.items()}, adapter.tensors)
        if self.differences:
            return rounded(adapter, "int8") if before is None else plus_rounded(before, adapter, self.wire)
        return adapter if self.wire == "float32" else rounded(adapter, self.wire)

    def weight(self, metropolis: float, own: int, theirs: int) -> float:
        """Return what an edge weighs here. own, theirs: numbers of examples, or ranks, of its ends."""
        return metropolis * min(1.0, theirs / own) if self.by_size or self.by_rank else metropolis


MIXINGS = {
    "local": Method("local"),
    "centralized": Method("centralized"),
    "decaf": Method("products"),
    "dlora": Method("factors"),
    "dlora-fa": Method("b alone"),
    "fedavg": Method("factors", server=True),
    "fedavg of products": Method("products", server=True),
}


def method_of(name: str) -> Method:
    """Return what a name means: how it mixes, then what is unlike the paper, as in "decaf, int8, 4 exchanges".

    Also: moments anew, near A, ranks mixed whole, bfloat16, momentum NUMBER, balanced, absent NUMBER, to mesh,
    to mean, own rows, nesterov NUMBER, quasi-global NUMBER, tracking, alternating, chebyshev, residual NUMBER, in use,
    by size, by rank, overlap, int8, compact, int4, int2, differences, sent at rank NUMBER. Raises ValueError.
    """
    mixing, *options = name.split(", ")
    if mixing not in MIXINGS:
        raise ValueError(f"{mixing} is none of {', '.join(MIXINGS)}")
    method = MIXINGS[mixing]
    for option in options:
        match option.split():
            case [count, "exchanges"]:
                method = replace(method, exchanges=int(count))
            case ["momentum", number]:
                method = replace(method, momentum=float(number))
            case ["nesterov", number]:
                method = replace(method, nesterov=float(number))
            case ["quasi-global", number]:
                method = replace(method, quasi_global=float(number))
            case ["int8" | "int4" | "int2" | "compact" | "bfloat16" as wire]:
                method = replace(method, wire=wire)
            case ["sent", "at", "rank", number]:
                method = replace(method, sent_rank=int(number))
            case ["differences"]:
                method = replace(method, differences=True)
            case ["balanced"]:
                method = replace(method, balanced=True)
            case ["absent", number]:
                method = replace(method, absent=float(number))
            case ["to", "mesh"]:
                method = replace(method, to_mesh=True)
            case ["to", "mean"]:
                method = replace(method, to_mean=True)
            case ["own", "rows"]:
                method = replace(method, own_rows=True)
            case ["moments", "anew"]:
                method = replace(method, moments="anew")
            case ["near", "A"]:
                method = replace(method, near_a=True)
            case ["ranks", "mixed", "whole"]:
                method = replace(method, whole=True)
            case ["tracking"]:
                method = replace(method, tracking=True)
            case ["alternating"]:
                method = replace(method, alternating=True)
            case ["chebyshev"]:
                method = replace(method, chebyshev=True)
            case ["residual", number]:
                method = replace(method, residual=int(number), whole=True)  # what does not fit is carried, not left out
            case ["in", "use"]:
                method = replace(method, in_use=True)
            case ["by", "rank"]:
                method = replace(method, by_rank=True)
            case ["by", "size"]:
                method = replace(method, by_size=True)
            case ["overlap"]:
                method = replace(method, overlap=True)
            case _:
                raise ValueError(f"{option} says nothing of how to learn together")
    _check(name, method)
    return method


def _check(name: str, method: Method) -> None:
    """Raise ValueError where two parts of a name do not go together."""
    if method.mixing != "products" and (method.tracking or method.residual):
        raise ValueError(f"{name}: only products are tracked, or leave a residual")
    if method.mixing not in ("products", "factors") and method.alternating:
        raise ValueError(f"{name}: factors alternate only where both are trained and mixed")
    if method.chebyshev and (method.momentum or method.residual or method.by_size or method.by_rank):
        raise ValueError(f"{name}: what else a mix adds, or other weights, are nothing that chebyshev accelerates")
    if (method.to_mesh or method.to_mean) and (not method.balanced or method.mixing == "centralized"):
        raise ValueError(f"{name}: only a node's balanced labels weigh as in the mesh")
    if method.to_mesh and method.to_mean:
        raise ValueError(f"{name}: labels weigh by one thing")
    if method.wire == "compact" and (method.sent_rank or method.server or method.mixing != "products"):
        raise ValueError(f"{name}: compact is of whole products, whose bytes the network counts one by one")
    if method.sent_rank and (method.differences or method.mixing != "products"):
        raise ValueError(f"{name}: only whole products are cut before they are sent")
    if method.differences and (method.wire not in ("int8", "int4", "int2") or method.tracking):
        raise ValueError(f"{name}: differences are of adapters, in few bits")
    if method.in_use and not method.residual:
        raise ValueError(f"{name}: only a residual can be in use")
    if method.by_size and method.by_rank:
        raise ValueError(f"{name}: nodes weigh by one thing")
    if method.server and (method.by_size or method.by_rank or method.chebyshev):
        raise ValueError(f"{name}: a server takes the plain mean, at once")
    if (method.overlap, method.nesterov > 0, method.quasi_global > 0).count(True) > 1:
        raise ValueError(f"{name}: steps begin in one place, that of overlap, of nesterov or of quasi-global")
