"""The options of the simulation: their defaults, what of them cannot be, and the command that plays a seed again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.cli.picture import why_not
from decaf_node.errors import UsageError

if TYPE_CHECKING:
    from decaf_node.sim.plan import Plan

SEEDS_AT_MOST = 10_000_000


@dataclass(frozen=True)
class Choices:
    """Every field but ``as_json`` is called as its option; None is left to the profile, or to the machine."""

    nodes: int = 8
    topology: str = "auto"
    rounds: int = 30
    round_seconds: float = 60.0
    spread: float | None = None
    payload: str = "none"
    faults: str = "none"
    loss: float | None = None
    cuts: float | None = None
    churn: float | None = None
    seeds: int = 1
    first_seed: int = 0
    jobs: int | None = None
    ray: str | None = None
    plot: Path | None = None
    as_json: bool = False

    def plan(self) -> Plan:
        """Return what each seed plays.

        Raises UsageError ``simulate.impossible``, BadSettings ``training.no-libraries``.
        """
        from decaf_node.sim.faults import choose
        from decaf_node.sim.plan import Plan, check
        from decaf_node.training.libraries import demand_libraries

        for wrong, sentence in _RULES:
            if wrong(self):
                raise UsageError("simulate.impossible", sentence(self))
        if self.plot is not None and (reason := why_not(self.plot)) is not None:
            raise UsageError("simulate.impossible", reason)
        if self.payload == "least-squares":
            demand_libraries()
        faults = choose(self.faults, self.loss, self.cuts, self.churn)
        return check(
            Plan(
                nodes=self.nodes,
                topology=self.topology,
                rounds=self.rounds,
                round_seconds=self.round_seconds,
                spread=faults.spread if self.spread is None else self.spread,
                payload=self.payload,
                faults=faults,
            )
        )

    def replay(self, seed: int) -> str:
        """Return the command that plays this one seed again."""
        words = ["decaf-node", "simulate"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _ASIDE and value != field.default:
                words += [f"--{field.name.replace('_', '-')}", str(value)]
        return shlex.join([*words, "--seeds", "1", "--first-seed", str(seed)])


_ASIDE = ("seeds", "first_seed", "jobs", "ray", "plot", "as_json")  # what a seed plays does not depend on them


_RULES: tuple[tuple[Callable[[Choices], bool], Callable[[Choices], str]], ...] = (
    (
        lambda choices: not 1 <= choices.seeds <= SEEDS_AT_MOST,
        lambda choices: f"{choices.seeds} seeds cannot be played; give --seeds from 1 to {SEEDS_AT_MOST}.",
    ),
    (
        lambda choices: choices.first_seed < 0,
        lambda choices: f"No seed is {choices.first_seed}; give --first-seed from 0.",
    ),
    (
        lambda choices: choices.jobs is not None and choices.jobs < 1,
        lambda choices: f"{choices.jobs} processes play nothing; give --jobs from 1, or leave it out.",
    ),
)
