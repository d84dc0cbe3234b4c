"""Put a plan together: the adapter's size from a child process, speeds as given, measured, or seen in the history."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, get_args

from decaf_node.cli.child import converse, scratch_folder
from decaf_node.cli.history import past_rounds
from decaf_node.cli.plan.wish import Wish
from decaf_node.daemon.client import Client
from decaf_node.daemon.planning.forecast import Choice, Facts, Forecast, Size, forecast
from decaf_node.daemon.planning.rules import Advice, recommend
from decaf_node.daemon.reports import RoundReport
from decaf_node.errors import DaemonUnreachable, NotAllowed, UsageError
from decaf_node.places import Places
from decaf_node.settings import MeshSection, Settings, load_settings, parse_settings

SIZING = "decaf_node.training.sizing"
TIMED_STEPS = 5
WIRES = {"dlora": ("float32", "int8"), "dlora-fa": ("float32", "bfloat16")}  # others go with all of them
RECENT = 100  # rounds


@dataclass(frozen=True)
class Seen:
    """What the history shows; None: nothing. link: bytes a second of the fastest exchange: others waited longer."""

    nodes: int | None = None
    link: float | None = None
    step_seconds: float | None = None
    mix_seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """now: of the settings as they are, or as given. memory_bytes: of the model and its optimizer."""

    facts: Facts
    memory_bytes: int
    now: Forecast
    recommended: Forecast
    advice: tuple[Advice, ...]


def make_plan(wish: Wish, places: Places, connect: Callable[[], Client]) -> Plan:
    """Return the plan. Raises UsageError, BadSettings, and what the child says of the model."""
    settings = _settings(wish, places.config)
    seen = Seen() if wish.model else _seen(connect, places)
    nodes = wish.nodes or seen.nodes
    if nodes is None:
        raise UsageError("plan.no-nodes", "No daemon runs here that knows its mesh; say with --nodes how many it has.")
    found = _sizes(settings, TIMED_STEPS if wish.measure else 0)
    facts = Facts(
        size=Size(found["bytes"], found["factors"], found["plain"], found["rank"]),
        nodes=nodes,
        link=_slower(wish.link or seen.link, settings.limits.upload_bytes_per_second),
        step_seconds=wish.step_seconds or found.get("step_seconds") or seen.step_seconds,
        mix_seconds=found.get("mix_seconds") or seen.mix_seconds,
        overlap=settings.round.overlap,
        wires=WIRES.get(settings.round.algorithm, Facts.wires),
    )
    rounds = settings.round
    now = Choice(settings.mesh.topology, settings.mixing.wire, facts.size.rank, rounds.steps, rounds.seconds)
    best = recommend(facts, now, rounds.wait_ceiling, wish.skewed)
    return Plan(facts, found["memory_bytes"], forecast(facts, now), forecast(facts, best.choice), best.advice)


def _settings(wish: Wish, config: Path) -> Settings:
    """Return the settings that are there, or those that new ones would be, with what is given on top."""
    if wish.model and not config.exists():
        document = {"model": {"path": str(wish.model.absolute())}, "data": {"train": ["none.jsonl"]}}
        settings = parse_settings(document, "given on the command line")
    else:
        settings = load_settings(config, os.environ)
    if wish.measure and not config.exists():
        raise UsageError("plan.nothing-to-measure", "--measure trains on the node's data; write its settings first.")
    if wish.measure and settings.training.trainer == "external":
        raise NotAllowed("plan.external-trainer", "Only your own script knows its steps; time one, and give it.")
    return _with(settings, wish)


def _with(settings: Settings, wish: Wish) -> Settings:
    names = get_args(MeshSection.model_fields["topology"].annotation)
    if wish.graph is not None and wish.graph not in names:
        raise UsageError("plan.unknown-graph", f"There is no graph {wish.graph!r}; choose {', '.join(names)}.")
    mesh = settings.mesh.model_copy(update={"topology": wish.graph} if wish.graph else {})
    model = settings.model.model_copy(update={"path": wish.model.absolute()} if wish.model else {})
    lora = {**settings.lora, "r": wish.rank} if wish.rank else settings.lora
    return settings.model_copy(update={"mesh": mesh, "model": model, "lora": lora})


def _sizes(settings: Settings, steps: int) -> dict[str, Any]:
    with scratch_folder("plan") as scratch:
        return converse(SIZING, {"settings": settings.model_dump(mode="json"), "steps": steps}, scratch)


def _seen(connect: Callable[[], Client], places: Places) -> Seen:
    with suppress(DaemonUnreachable), past_rounds(connect, places) as past:
        members = [] if past.client is None else past.client.topology().members
        nodes = sum(member.state != "gone" for member in members)
        return _speeds(past.rounds, nodes if nodes > 1 else None)
    return Seen()


def _speeds(rounds: Iterator[RoundReport], nodes: int | None) -> Seen:
    rows = list(islice(rounds, RECENT))
    mixed = [row for row in rows if row.edges and row.exchange_seconds > 0]
    return Seen(
        nodes=nodes,
        link=max((max(row.sent_bytes, row.received_bytes) / row.exchange_seconds for row in mixed), default=0.0)
        or None,
        step_seconds=_middle([row.train_seconds / row.steps for row in rows if row.steps]),
        mix_seconds=_middle([row.mix_seconds for row in mixed]),
    )


def _slower(link: float | None, allowed: int) -> float | None:
    """Return what a link carries of which no more than ``allowed`` may be used; 0: all, None: not known."""
    return min(link, allowed) if link and allowed else link


def _middle(values: list[float]) -> float | None:
    return (median(values) or None) if values else None
