"""Whole adapters mixed and adopted in one call."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.adapter import Adapter, check_same, norm, over_layers
from decaf_node.lowrank.gauge import truncate_near
from decaf_node.lowrank.gram import MEMORY_BYTES, piece_bytes
from decaf_node.lowrank.mix import Stack, cut, joined, on_threads, stack
from decaf_node.lowrank.product import BadProduct, Product

# Matrices of a core's size (m, m) that are alive at once while it is solved.
CORE_COPIES = 12
LAYERS = 16  # whose cores are solved in one call: a call of Python's, and the lock around it, cost as much as a core

_Groups = Sequence[Sequence[str]]


@dataclass(frozen=True)
class AdapterEdge:
    """``weight * (theirs - own)`` is due. own: the snapshot of ours that the edge pairs theirs with, as it was sent."""

    own: Adapter
    theirs: Adapter
    weight: float


@dataclass(frozen=True)
class MixedAdapter:
    """A mix, and its figures over all layers (Frobenius norms).

    tail:         of what the truncation has cut
    interference: of the error that averaging A and B apart makes; nan where ranks differ and they cannot be averaged
    norm:         of the products of ``adapter``, before their factors were rounded to its dtype
    """

    adapter: Adapter
    tail: float
    interference: float
    norm: float


@dataclass(frozen=True)
class _Term:
    adapter: Adapter
    weight: float


@dataclass(frozen=True)
class _Layers:
    """A few layers, mixed; the figures are one a layer, in any order."""

    products: dict[str, Product]
    tail: Tensor
    interference: Tensor
    norm: Tensor


def mix_adapters(now: Adapter, edges: Sequence[AdapterEdge], *, memory_bytes: int = MEMORY_BYTES) -> MixedAdapter:
    """Return ``now + sum(w * (theirs - own))``: products by best rank-r product, other tensors plainly.

    Where the ranks of an edge's ends differ, the higher is cut to the lower one first, see ``_common``. Rank, scale,
    dtype and device of each layer are those of ``now``, and its factors are near (see ``gauge.align``); the others may
    have scales, dtypes and a device of their own. Terms that are one object are one term: where ``own`` is ``now``, the
    synchronous case, ``now`` weighs ``1 - sum(w)`` and nothing has to cancel.

    Memory: at most ``memory_bytes`` beyond inputs and outputs, as far as one row of a block and the cores allow.
    Raises BadData if layers, tensors or shapes differ, or a factor is not finite.
    """

    def common(names: Sequence[str], share: int) -> list[_Term]:
        return _terms(now, _common(edges, names, share))

    parts = [now, *(end for edge in edges for end in (edge.own, edge.theirs))]
    return _mixed(now, parts, _terms(now, edges), common, memory_bytes)


def mix_factors(now: Adapter, edges: Sequence[AdapterEdge], *, frozen_a: bool) -> MixedAdapter:
    """Return ``now`` with A and B corrected apart, each by ``sum(w * (theirs - own))``: Dec-LoRA.

    With ``frozen_a`` only B is (DLoRA-FA), and A must be the same everywhere, to the rounding of the coarsest dtype.
    Scales are folded into both factors alike (``frozen_a``: into B). Nothing is cut, so ``tail`` is 0, and
    ``interference`` is the error made. Raises BadData if ranks differ, or as ``mix_adapters``.
    """
    terms = _terms(now, edges)
    check_same([term.adapter for term in terms])
    _check_scales(now)
    products, errors = {}, [0.0]
    for name, product in now.products.items():
        layer = [term.adapter.products[name] for term in terms]
        weights = [term.weight for term in terms]
        if any(other.rank != product.rank for other in layer):
            raise BadProduct(
                "adapter.rank", f"Layer {name} has not the same rank everywhere; only `decaf` mixes ranks."
            )
        if frozen_a:
            products[name] = _average_b(name, product, layer, weights)
        else:
            products[name] = _average_factors(product, layer, weights)
            errors.append(_interference(stack(layer, weights)).item())
    tensors = {name: _plain(name, terms, MEMORY_BYTES) for name in now.tensors}
    adapter = Adapter(products, tensors)
    return MixedAdapter(adapter, 0.0, math.hypot(*errors), norm(adapter))


def adopt(chosen: Adapter, now: Adapter, base: Adapter | None, *, memory_bytes: int = MEMORY_BYTES) -> Adapter:
    """Return ``chosen + (now - base)``: another member's state plus our own change since ``base``.

    Without a base our products began at zero, and other tensors are simply taken from ``chosen``. Rank, scale,
    dtype and factors are those of ``now``, as in ``mix_adapters``. Raises BadData as ``mix_adapters``.
    """
    terms = [_Term(now, 1.0), _Term(chosen, 1.0)]
    if base is not None:
        terms.append(_Term(base, -1.0))
    parts, terms = [term.adapter for term in terms], _merged(terms)
    mixed = _mixed(now, parts, terms, lambda names, share: terms, memory_bytes).adapter
    if base is not None:
        return mixed
    tensors = {name: chosen.tensors[name].to(tensor, copy=True) for name, tensor in now.tensors.items()}
    return Adapter(mixed.products, tensors)


def adopt_factors(chosen: Adapter, now: Adapter, base: Adapter | None, *, frozen_a: bool) -> Adapter:
    """Return what ``adopt`` does for the algorithms of ``mix_factors``: A and B stay in the factors that all share.

    Without a base B began at zero, and A and other tensors are simply taken from ``chosen``.
    """
    if base is None:
        start = {name: Product(torch.zeros_like(p.b), p.a, p.scale) for name, p in now.products.items()}
        base = Adapter(start, now.tensors)
    return mix_factors(now, [AdapterEdge(base, chosen, 1.0)], frozen_a=frozen_a).adapter


def _common(edges: Sequence[AdapterEdge], names: Sequence[str], memory_bytes: int) -> list[AdapterEdge]:
    """Leave of both ends of each edge what both can hold: of these layers the best product of the lower rank.

    A mix that takes a node of rank 16 as a whole towards one of rank 4 erases, round by round, what only the first can
    hold: the other never gives it back. Both ends cut alike, so the sum over the mesh stays. (Where the singular values
    at the cut are nearly equal, rounds of nothing but mixing turn there for a while, by a few hundredths of the whole.)
    An end that is cut holds these layers only. They are of one shape, and of one rank at each end.
    """
    done: dict[tuple[int, int], Adapter] = {}

    def to_rank_of(other: Adapter, adapter: Adapter) -> Adapter:
        rank = other.products[names[0]].rank
        if adapter.products[names[0]].rank <= rank:
            return adapter
        if (id(adapter), rank) not in done:
            whole = _batch(adapter, names, adapter.products[names[0]].b.device)
            done[id(adapter), rank] = Adapter(_unbatched(cut(whole, rank, memory_bytes), names), {})
        return done[id(adapter), rank]

    return [
        AdapterEdge(to_rank_of(edge.theirs, edge.own), to_rank_of(edge.own, edge.theirs), edge.weight) for edge in edges
    ]


def _terms(now: Adapter, edges: Sequence[AdapterEdge]) -> list[_Term]:
    if not all(math.isfinite(edge.weight) for edge in edges):
        raise BadProduct("product.weights", f"The weights {[edge.weight for edge in edges]} are not all finite.")
    terms = [_Term(now, 1.0)]
    for edge in edges:
        terms += [_Term(edge.theirs, edge.weight), _Term(edge.own, -edge.weight)]
    return _merged(terms)


def _merged(terms: Sequence[_Term]) -> list[_Term]:
    """Sum the weights of terms that are the same object; the first stays first, others without weight go."""
    weights: dict[int, float] = defaultdict(float)
    adapters = {id(term.adapter): term.adapter for term in terms}
    for term in terms:
        weights[id(term.adapter)] += term.weight
    merged = [_Term(adapter, weights[key]) for key, adapter in adapters.items()]
    return merged[:1] + [term for term in merged[1:] if term.weight != 0]


def _mixed(
    now: Adapter,
    parts: Sequence[Adapter],
    terms: Sequence[_Term],
    terms_of: Callable[[Sequence[str], int], Sequence[_Term]],
    memory_bytes: int,
) -> MixedAdapter:
    """Mix group by group, where there are several one CPU thread a group: threads inside a group wait for each other.

    parts: all that is mixed. terms: of the plainly averaged tensors. terms_of: of layers, within so many bytes.
    """
    parts = list({id(part): part for part in parts}.values())
    check_same(parts)
    _check_scales(now)
    workers = torch.get_num_threads()
    share = memory_bytes // workers

    def mix(groups: _Groups) -> _Layers:
        return _mix_layers([terms_of(names, share) for names in groups], groups, share)

    done = on_threads(mix, list(_groups(now, parts, share, workers)))
    products = {name: product for layers in done for name, product in layers.products.items()}
    tensors = {name: _plain(name, terms, memory_bytes) for name in now.tensors}
    return MixedAdapter(
        Adapter({name: products[name] for name in now.products}, tensors),
        tail=over_layers([layers.tail for layers in done]),
        interference=over_layers([layers.interference for layers in done]),
        norm=over_layers([layers.norm for layers in done]),
    )


def _mix_layers(terms: Sequence[Sequence[_Term]], groups: _Groups, memory_bytes: int) -> _Layers:
    totals = []
    for some, names in zip(terms, groups, strict=True):
        device = some[0].adapter.products[names[0]].b.device
        parts = [_batch(term.adapter, names, device) for term in some]
        totals.append(stack(parts, [term.weight for term in some], memory_bytes))
    mixed, norm, tail = truncate_near(totals, memory_bytes=memory_bytes)
    products: dict[str, Product] = {}
    for names, product in zip(groups, mixed, strict=True):
        products |= _unbatched(product, names)
    return _Layers(products, tail, _interference(joined(totals)), norm)


def _groups(now: Adapter, parts: Sequence[Adapter], memory_bytes: int, workers: int) -> Iterator[_Groups]:
    """Yield the layers in groups of one shape, each small enough to be copied into a piece of ``memory_bytes``.

    Layers that are a group each, and so are not copied, come several at a time, for each worker twice or more.
    """
    alike: dict[object, list[str]] = defaultdict(list)
    for name, product in now.products.items():
        layer = [part.products[name] for part in parts]
        alike[product.shape, tuple((p.rank, p.scale, p.b.dtype, p.b.device) for p in layer)].append(name)
    for names in alike.values():
        layer = [part.products[names[0]] for part in parts]
        in_place = all(product.b.device == layer[0].b.device for product in layer)
        if any(product.rank != layer[0].rank for product in layer):
            in_place, layer = False, [*layer, *layer]  # what is cut is there twice
        factors = sum(p.b.nbytes + p.a.nbytes for p in [*layer, layer[0]])
        cores = CORE_COPIES * 8 * sum(p.rank for p in layer) ** 2
        step = max(1, piece_bytes(layer[0].b.device, memory_bytes) // (factors + cores))
        groups = [names[start : start + step] for start in range(0, len(names), step)]
        most = min(LAYERS, memory_bytes // 4 // cores, len(groups) // (2 * workers))
        together = max(1, most) if in_place and step == 1 else 1
        for start in range(0, len(groups), together):
            yield groups[start : start + together]


@torch.no_grad()
def _batch(adapter: Adapter, names: Sequence[str], device: torch.device) -> Product:
    products = [adapter.products[name] for name in names]
    scale = products[0].scale
    if len(products) == 1:  # not copied, if it is where it should be: it may be large
        return Product(products[0].b.to(device), products[0].a.to(device), scale)
    b, a = torch.stack([product.b for product in products]), torch.stack([product.a for product in products])
    return Product(b.to(device), a.to(device), scale)


def _unbatched(product: Product, names: Sequence[str]) -> dict[str, Product]:
    if len(names) == 1:
        return {names[0]: product}
    pairs = zip(names, product.b, product.a, strict=True)
    return {name: Product(b, a, product.scale) for name, b, a in pairs}


def _interference(total: Stack) -> Tensor:
    """Return ``||sum(w s B A) - B_mean A_mean||``, one a layer, scales folded into both factors alike.

    It is ``||L K R||`` with K (m, m), so ``tr(K^T G_L K G_R)``, clamped at 0.
    """
    rank = total.products[0].rank
    if any(product.rank != rank for product in total.products):
        return torch.tensor(math.nan, dtype=torch.float64)
    weight = torch.tensor(total.weights, dtype=torch.float64)
    scale = torch.tensor([product.scale for product in total.products], dtype=torch.float64)
    means = (weight * scale.sign() * scale.abs().sqrt())[:, None] * (weight * scale.abs().sqrt())
    k = torch.kron(torch.diag(weight * scale) - means, torch.eye(rank, dtype=torch.float64))
    return ((k.mT @ total.gram_b @ k) * total.gram_a).sum((-2, -1)).clamp_min(0).sqrt()


def _average_factors(now: Product, layer: Sequence[Product], weights: Sequence[float]) -> Product:
    folds = [math.sqrt(abs(product.scale) / now.scale) for product in layer]
    signs = [math.copysign(1.0, product.scale) for product in layer]
    b = [weight * sign * fold for weight, sign, fold in zip(weights, signs, folds, strict=True)]
    a = [weight * fold for weight, fold in zip(weights, folds, strict=True)]
    return Product(
        _weighted([p.b for p in layer], b, MEMORY_BYTES), _weighted([p.a for p in layer], a, MEMORY_BYTES), now.scale
    )


def _average_b(name: str, now: Product, layer: Sequence[Product], weights: Sequence[float]) -> Product:
    for other in layer[1:]:
        rounding = max(torch.finfo(other.a.dtype).eps, torch.finfo(now.a.dtype).eps)
        if not torch.allclose(other.a.to(now.a), now.a, rtol=rounding, atol=rounding):
            raise BadProduct(
                "adapter.frozen-a", f"Layer {name} has another A at a neighbour; `dlora-fa` needs the same seed of A."
            )
    folded = [weight * product.scale / now.scale for weight, product in zip(weights, layer, strict=True)]
    return Product(_weighted([product.b for product in layer], folded, MEMORY_BYTES), now.a.clone(), now.scale)


def _plain(name: str, terms: Sequence[_Term], memory_bytes: int) -> Tensor:
    tensors = [term.adapter.tensors[name] for term in terms]
    return _weighted(tensors, [term.weight for term in terms], memory_bytes)


@torch.no_grad()
def _weighted(tensors: Sequence[Tensor], weights: Sequence[float], memory_bytes: int) -> Tensor:
    """Return ``sum(w * t)`` in the dtype of the first, summed in float64 piece by piece and rounded once."""
    result = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
    flat, step = [tensor.reshape(-1) for tensor in tensors], max(1, memory_bytes // 64)
    for start in range(0, result.numel(), step):
        piece = slice(start, start + step)
        total = torch.zeros(flat[0][piece].shape, dtype=torch.float64, device=result.device)
        for tensor, weight in zip(flat, weights, strict=True):
            total += weight * tensor[piece].to(result.device)
        result.view(-1)[piece] = total
    if not bool(result.isfinite().all()):
        raise BadProduct("product.not-finite", "A tensor holds a number that is not finite; nothing was mixed.")
    return result


def _check_scales(now: Adapter) -> None:
    for name, product in now.products.items():
        if product.scale <= 0:
            raise BadProduct("adapter.scale", f"Layer {name} has a LoRA scale of {product.scale}; it must be above 0.")
