"""Figures of a device to and from ``monitor.proto``; see ``report_wire`` for what may come."""

from __future__ import annotations

from typing import Any

from decaf_node.daemon.reports import GpuReport, MachineReport, RailReport
from decaf_node.daemon.texts import readable
from decaf_node.v1 import monitor_pb2 as pb

NAME_LIMIT = 200


def machine_to_wire(report: MachineReport) -> pb.Machine:
    """Return the message for the figures."""
    return pb.Machine(
        gpus=map(_gpu_to_wire, report.gpus),
        memory_used_bytes=report.memory_used_bytes,
        memory_total_bytes=report.memory_total_bytes,
        temperature_celsius=report.temperature_celsius,
        power_watts=report.power_watts,
        on_battery=report.on_battery,
        rails=[pb.Rail(name=rail.name, power_watts=rail.power_watts) for rail in report.rails],
    )


def machine_from_wire(message: pb.Machine) -> MachineReport:
    """Return the figures in ``message``."""
    return MachineReport(
        gpus=tuple(map(_gpu_from_wire, message.gpus)),
        memory_used_bytes=_known(message, "memory_used_bytes"),
        memory_total_bytes=_known(message, "memory_total_bytes"),
        temperature_celsius=_known(message, "temperature_celsius"),
        power_watts=_known(message, "power_watts"),
        on_battery=_known(message, "on_battery"),
        rails=tuple(RailReport(readable(rail.name[:NAME_LIMIT]), rail.power_watts) for rail in message.rails),
    )


def _gpu_to_wire(gpu: GpuReport) -> pb.Gpu:
    return pb.Gpu(
        name=gpu.name,
        use=gpu.use,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_total_bytes=gpu.memory_total_bytes,
        temperature_celsius=gpu.temperature_celsius,
        power_watts=gpu.power_watts,
    )


def _gpu_from_wire(message: pb.Gpu) -> GpuReport:
    return GpuReport(
        name=readable(message.name[:NAME_LIMIT]),
        use=_known(message, "use"),
        memory_used_bytes=_known(message, "memory_used_bytes"),
        memory_total_bytes=_known(message, "memory_total_bytes"),
        temperature_celsius=_known(message, "temperature_celsius"),
        power_watts=_known(message, "power_watts"),
    )


def _known(message: pb.Machine | pb.Gpu, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
