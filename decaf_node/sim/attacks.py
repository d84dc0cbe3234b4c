"""Members that lie, in a simulated mesh of least-squares learners: what they send is not what they have trained.

A liar runs the same machine as everyone, proposes full weights, and mixes what it is sent; only the bytes that it
serves are of its own making (but one kind, whose data are wrong). The error that counts is that of the honest nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean

import torch

from decaf_node.lowrank.adapter import Adapter, norm
from decaf_node.lowrank.product import Product
from decaf_node.sim.host import Host
from decaf_node.sim.least_squares import LAYER, LeastSquares
from decaf_node.sim.network import Content
from decaf_node.sim.plan import Plan
from decaf_node.sim.world import World

OTHER_SCHEMA = "0f" * 32
NOISE = 100.0  # times the norm of the sound snapshot
DRIFT = 1.0  # times the norm of the truth
OLD = 3  # the round whose copy is sent for ever
APART = 0.2  # how far each node's data are from the truth, beside its norm
LAST = 5  # rounds over which the error is taken

Lie = Callable[["HostileWorld", Host, Content], Content]


@dataclass(frozen=True)
class Attack:
    """lie: what is served instead of a snapshot; None: nobody lies. mislead: the liar trains on the opposite."""

    name: str
    lie: Lie | None
    liars: int = 1
    mislead: bool = False


def _sign_flip(world: HostileWorld, host: Host, content: Content) -> Content:
    return replace(content, value=_scaled(content.value, -1.0))


def _noise(world: HostileWorld, host: Host, content: Content) -> Content:
    sound = content.value.products[LAYER]
    generator = torch.Generator().manual_seed(Random(content.snapshot.digest).getrandbits(63))
    drawn = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in (sound.b, sound.a)]
    product = Product(drawn[0], drawn[1])
    size = NOISE * max(1.0, norm(content.value)) / float(product.norm())
    return replace(content, value=_scaled(Adapter({LAYER: product}, {}), size))


def _zero(world: HostileWorld, host: Host, content: Content) -> Content:
    return replace(content, value=_scaled(content.value, 0.0))


def _drift(world: HostileWorld, host: Host, content: Content) -> Content:
    return replace(content, value=world.problem.mix(content.value, [(1.0, world.nothing, world.drift)]).value)


def _old_round(world: HostileWorld, host: Host, content: Content) -> Content:
    if content.snapshot.round <= OLD:
        world.old[host.device] = content
    return replace(content, value=world.old.get(host.device, content).value)


def _not_finite(world: HostileWorld, host: Host, content: Content) -> Content:
    return replace(content, finite=False)


def _other_model(world: HostileWorld, host: Host, content: Content) -> Content:
    return replace(content, schema=OTHER_SCHEMA)


def _alternating(world: HostileWorld, host: Host, content: Content) -> Content:
    return content if content.snapshot.round % 2 else _sign_flip(world, host, content)


def _honest(world: HostileWorld, host: Host, content: Content) -> Content:
    return content


ATTACKS = (
    Attack("none", None),
    Attack("sign flip", _sign_flip),
    Attack("large noise", _noise),
    Attack("zero product", _zero),
    Attack("constant drift", _drift),
    Attack("copy of an old round", _old_round),
    Attack("flipped labels", _honest, mislead=True),
    Attack("not finite", _not_finite),
    Attack("another model", _other_model),
    Attack("alternating good and bad", _alternating),
    Attack("two colluders", _drift, liars=2),
)


class HostileWorld(World):
    """A world whose last nodes lie. errors: of the honest nodes, once a round, beside the norm of the truth."""

    def __init__(self, plan: Plan, seed: int, attack: Attack, robust: str) -> None:
        super().__init__(plan, seed)
        assert isinstance(self.problem, LeastSquares), "liars are played with the payload least-squares"
        self.attack = attack
        self.errors: list[float] = []
        self.old: dict[str, Content] = {}
        self._lies: dict[str, Content] = {}
        problem, truth = self.problem, self.problem.truth
        generator = torch.Generator().manual_seed(seed)
        scale = float(truth.norm())

        def drawn(size: float) -> torch.Tensor:
            matrix: torch.Tensor = torch.randn(truth.shape, generator=generator, dtype=truth.dtype)
            return matrix * (size * scale / float(matrix.norm()))

        problem.targets = [truth + drawn(APART) for _ in problem.targets]
        u, s, v = torch.linalg.svd(drawn(1.0))
        rank_one = u[:, :1] * s[:1], v[:1]
        self.drift = _scaled(Adapter({LAYER: Product(*rank_one)}, {}), DRIFT * scale / float(s[0]))
        self.nothing = _scaled(self.drift, 0.0)
        for host in self.hosts:
            lies = self.lies(host)
            host.policy = replace(host.policy, robust="off" if lies else robust)
            if lies and attack.mislead:
                problem.targets[host.number] = -truth

    def lies(self, host: Host) -> bool:
        """Say whether it is one of the liars."""
        return self.attack.lie is not None and host.number >= self.plan.nodes - self.attack.liars

    def served(self, host: Host, content: Content) -> Content:
        """See ``World``. Who asks twice hears the same lie."""
        if self.attack.lie is None or not self.lies(host) or content.maker != host.device:
            return content
        digest = content.snapshot.digest
        if digest not in self._lies:
            self._lies[digest] = self.attack.lie(self, host, content)
        return self._lies[digest]

    @property
    def error(self) -> float:
        """Return the error of the honest nodes over the last rounds."""
        return fmean(self.errors[-LAST:])

    def _measure(self) -> None:
        assert isinstance(self.problem, LeastSquares)
        truth = self.problem.truth
        values = [host.trainer.value for host in self.hosts if not self.lies(host) and host.trainer.value is not None]
        if values:
            errors = [float((value.products[LAYER].dense() - truth).norm() / truth.norm()) for value in values]
            self.errors.append(fmean(errors))


def _scaled(adapter: Adapter, by: float) -> Adapter:
    product = adapter.products[LAYER]
    return Adapter({LAYER: Product(by * product.b, product.a, product.scale)}, {})
