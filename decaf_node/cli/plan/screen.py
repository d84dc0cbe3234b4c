"""How a plan looks, and its settings as TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from decaf_node.cli.plan.plan import Plan
from decaf_node.cli.words import duration, size
from decaf_node.daemon.planning.forecast import Forecast

UNKNOWN = "not known"


def cost_table(plan: Plan) -> Iterator[RenderableType]:
    """Yield what a round costs a node, as it is set now and as recommended."""
    facts = plan.facts
    numbers = facts.size.factors + facts.size.plain
    yield Text(f"{facts.nodes} nodes; an adapter of rank {facts.size.rank} has {numbers:,} numbers.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("a round of a node", "as set", "recommended"):
        table.add_column(name, overflow="fold")
    for name, now, then in zip(_NAMES, _column(plan.now), _column(plan.recommended), strict=True):
        table.add_row(name, now, then)
    yield table
    yield Text(f"Speeds: {_speeds(plan)}.")
    yield Text(f"Memory: {size(plan.memory_bytes)} for model, adapter and optimizer, and activations on top.")


def settings_of(plan: Plan) -> str:
    """Return the recommended settings as TOML, each line with its reason."""
    lines: list[str] = []
    for advice in plan.advice:
        if f"[{advice.section}]" not in lines:
            lines += ["", f"[{advice.section}]"]
        lines.append(f"{f'{advice.key} = {json.dumps(advice.value)}':<28} # {advice.reason}")
    return "\n".join(lines).strip()


def document_of(plan: Plan) -> dict[str, Any]:
    """Return the plan for programs."""
    return {**asdict(plan), "settings": settings_of(plan) + "\n"}


_NAMES = (
    "graph",
    "snapshot",
    "sent, and received",
    "train",
    "exchange",
    "mix",
    "in all, with overlap",
    "in all, without",
    "traffic an hour",
    "traffic in 30 days",
)


def _column(of: Forecast) -> list[str]:
    return [
        f"{of.graph}, {of.neighbours:.3g} neighbours",
        size(of.snapshot_bytes),
        size(of.sent_bytes),
        *map(_time, (of.train_seconds, of.exchange_seconds, of.mix_seconds)),
        *map(_time, (of.with_overlap_seconds, of.without_overlap_seconds)),
        *(UNKNOWN if traffic is None else size(round(traffic)) for traffic in (of.hour_bytes, of.month_bytes)),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def _speeds(plan: Plan) -> str:
    facts = plan.facts
    link = "link not known (--link)" if facts.link is None else f"link {8 * facts.link / 1e6:,.4g} Mbit/s each way"
    if facts.step_seconds is None:
        return f"{link}, local step not known (--step-seconds or --measure)"
    return f"{link}, {_time(facts.step_seconds)} a local step"
