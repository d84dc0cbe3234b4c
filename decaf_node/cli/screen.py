"""The screen of ``decaf-node status``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from decaf_node.cli.words import clock, duration, number, percent, short_id, size
from decaf_node.daemon.node_id import printed
from decaf_node.daemon.reports import AlertReport, GpuReport, MachineReport, PeerReport, StatusReport

Row = tuple[str, str]


def status_screen(report: StatusReport, known: Sequence[PeerReport], alerts: Sequence[AlertReport]) -> RenderableType:
    """Return one readable screen: what is wrong first, then what the node does, then where things are."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_doing(report, known), *_learning(report), *_being(report)):
        table.add_row(name, Text(value))
    title = Text(f"{report.name} ({short_id(report.node)}) in mesh {report.mesh}", style="bold")
    return Group(title, *_verdict(report, alerts), Text(), table)


def _verdict(report: StatusReport, alerts: Sequence[AlertReport]) -> Iterator[Text]:
    for alert in alerts:
        style = "bold red" if alert.severity == "critical" else "yellow"
        yield Text(f"! {alert.words} (since {clock(alert.since)})", style=style)
    if report.problem and not alerts:
        yield Text(f"! {report.problem}", style="bold red")
    if not report.problem and not alerts:
        yield Text("Nothing is wrong.", style="green")


def _doing(report: StatusReport, known: Sequence[PeerReport]) -> Iterator[Row]:
    names = {peer.node: peer.name for peer in known}
    waiting = ", ".join(names.get(node) or short_id(node) for node in report.waiting_for)
    phase = f"paused: {report.why_paused}" if report.why_paused else report.phase
    yield "round", f"{report.round}, {phase}" + (f", waits for {waiting}" if waiting else "")
    yield "saved", f"round {report.saved_round}" if report.saved_round else "nothing yet"
    around = [peer.name or short_id(peer.node) for peer in known if peer.neighbour and peer.state != "gone"]
    gone = [peer.name or short_id(peer.node) for peer in known if peer.state == "gone"]
    words = ", ".join(around) or "none in reach"
    yield "neighbours", words + (f"; gone: {', '.join(gone)}" if gone else "")


def _learning(report: StatusReport) -> Iterator[Row]:
    trainer = report.trainer
    loss = f"loss {number(trainer.loss)}, step {trainer.step} of this round, {trainer.steps_per_second:.3g} steps/s"
    yield "training", loss if trainer.loss is not None else "no step yet"
    if report.privacy is not None:
        budget = report.privacy
        left = f"{budget.steps_left:,} steps left" if budget.steps_left else "all spent: it trains no more"
        yield "privacy", f"epsilon {number(budget.spent)} of {budget.epsilon:g} (delta {budget.delta:g}), {left}"
    last = report.last_round
    if last is None:
        yield "held out", "not evaluated yet"
        return
    if last.evaluation_loss is not None:
        accuracy = "" if last.evaluation_accuracy is None else f"accuracy {percent(last.evaluation_accuracy)}, "
        yield "held out", f"{accuracy}loss {number(last.evaluation_loss)} (round {last.round})"
    if last.consensus_distance is not None:
        yield "distance", f"{number(last.consensus_distance)} to the neighbours mixed (norm {number(last.norm)})"


def _being(report: StatusReport) -> Iterator[Row]:
    yield "network", f"{size(report.sent_bytes)} sent, {size(report.received_bytes)} received, at {report.address}"
    trainer = report.trainer
    restarts = f", restarted {trainer.restarts} times" if trainer.restarts else ""
    yield (
        "trainer",
        f"{trainer.state}{restarts}"
        + (
            f", process {trainer.pid} on {trainer.device}, rank {trainer.rank}, {trainer.parameters:,} parameters"
            if trainer.pid and trainer.device
            else ""
        ),
    )
    if report.machine is not None:
        yield from _device(report.machine)
    yield "daemon", f"up {duration(report.uptime_seconds)}, {size(report.resident_bytes)}, version {report.version}"
    yield "node ID", printed(report.node)
    yield "state", report.state_folder
    if report.saved_round:
        yield "adapter", report.adapter_folder


def _device(machine: MachineReport) -> Iterator[Row]:
    for gpu in machine.gpus:
        use = None if gpu.use is None else f"{gpu.use:.0%} busy"
        yield "GPU", _listed(gpu.name, use, _memory(gpu), _heat(gpu), _power(gpu))
    yield "device", _listed(_memory(machine), _heat(machine), _power(machine)) or "no figures"


def _listed(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _memory(of: GpuReport | MachineReport) -> str | None:
    if of.memory_used_bytes is None or of.memory_total_bytes is None:
        return None
    return f"{size(of.memory_used_bytes)} of {size(of.memory_total_bytes)} in use"


def _heat(of: GpuReport | MachineReport) -> str | None:
    return None if of.temperature_celsius is None else f"{of.temperature_celsius:.0f} °C"


def _power(of: GpuReport | MachineReport) -> str | None:
    return None if of.power_watts is None else f"{of.power_watts:.1f} W"
