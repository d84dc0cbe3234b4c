"""A node's figures as Prometheus metrics: what one reading holds, under names that promtool accepts.

What is not known is absent, never zero. Labels name neighbours only, and no more than ``NEIGHBOURS`` of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from decaf_node.daemon.disk_room import Disk
from decaf_node.daemon.reports import MachineReport, PeerReport, PrivacyReport, RoundReport, StatusReport

NEIGHBOURS = 64
PHASES = (
    *("starting", "training", "exchanging", "mixing", "saving"),
    *("adopting", "paused", "done", "stopping", "stopped"),
)
PEER_STATES = ("alive", "late", "gone")


@dataclass(frozen=True)
class Validity:
    """From when to when this node's certificate is valid, seconds since 1970."""

    begin: float
    end: float

    @staticmethod
    def of(certificate: x509.Certificate) -> Validity:
        """Return that of a certificate."""
        return Validity(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


@dataclass(frozen=True)
class Reading:
    """A node at one moment. certificate: None in plaintext."""

    status: StatusReport
    peers: Sequence[PeerReport]
    certificate: Validity | None


def metrics_of(reading: Reading, disk: Disk | None) -> Iterator[Metric]:
    """Yield all metrics. disk: None where it cannot be asked."""
    yield from _node(reading.status)
    yield from _trainer(reading.status)
    if reading.status.last_round is not None:
        yield from _last_round(reading.status.last_round)
    if reading.status.privacy is not None:
        yield from _privacy(reading.status.privacy)
    if reading.status.machine is not None:
        yield from _machine(reading.status.machine)
    yield from _peers(reading.peers)
    if reading.certificate is not None:
        yield from _certificate(reading.certificate)
    if disk is not None:
        yield from _disk(disk)


def _node(status: StatusReport) -> Iterator[Metric]:
    about = {"version": status.version, "mesh": status.mesh, "node": status.node, "name": status.name}
    yield InfoMetricFamily("decaf_node", "What this node is.", about | {"schema": status.schema})
    yield _gauge("uptime_seconds", "Time since the daemon started.", status.uptime_seconds)
    yield _gauge("resident_memory_bytes", "Resident memory of the daemon.", status.resident_bytes)
    yield _gauge("problem", "1 while something is wrong; decaf-node status says what.", float(bool(status.problem)))
    yield _gauge("round", "Round in progress.", status.round)
    yield _gauge("saved_round", "Last durable round.", status.saved_round)
    yield _counter("mixes", "Rounds in which this node has mixed with a neighbour.", status.mixes)
    yield _gauge("degree", "Neighbours in this round.", status.degree)
    yield _gauge("awaited_neighbours", "Neighbours that the round waits for.", len(status.waiting_for))
    yield _states("phase", "1 for the phase that the node is in.", "phase", PHASES, (status.phase,))
    yield _counter("snapshot_sent_bytes", "Bytes of snapshots sent since the start.", status.sent_bytes)
    yield _counter("snapshot_received_bytes", "Bytes of snapshots received since the start.", status.received_bytes)


def _trainer(status: StatusReport) -> Iterator[Metric]:
    trainer = status.trainer
    yield _counter("trainer_restarts", "Times the trainer was started again since the start.", trainer.restarts)
    yield _gauge("trainer_ready", "1 while the trainer is there and has loaded the model.", trainer.state == "ready")
    yield from _known("loss", "Mean training loss of late.", trainer.loss)
    if trainer.state == "ready":
        yield _gauge("trainer_parameters", "Trainable parameters.", trainer.parameters)
        yield _gauge("adapter_rank", "Largest rank of the adapter.", trainer.rank)


def _last_round(last: RoundReport) -> Iterator[Metric]:
    yield _gauge("last_round_timestamp_seconds", "When the last round was mixed.", last.time)
    yield _gauge("last_round_train_seconds", "Time that training took in the last round.", last.train_seconds)
    yield _gauge("last_round_exchange_seconds", "Time that the exchange took in the last round.", last.exchange_seconds)
    yield _gauge("last_round_mix_seconds", "Time that the mix took in the last round.", last.mix_seconds)
    yield _gauge("last_round_steps", "Local steps of the last round.", last.steps)
    yield _gauge("last_round_edges", "Edges mixed in the last round.", len(last.edges))
    yield _gauge("cut_tail", "Frobenius norm of what the truncation of the last round cut.", last.tail)
    yield _gauge("interference", "Frobenius norm of the error that averaging factors had made.", last.interference)
    yield _gauge("product_norm", "Frobenius norm of the node's product after the last mix.", last.norm)
    yield from _known(
        "consensus_distance", "Root mean square distance to the neighbours mixed.", last.consensus_distance
    )
    yield from _known("evaluation_loss", "Held-out loss, in rounds that were evaluated.", last.evaluation_loss)
    yield from _known(
        "evaluation_accuracy_ratio", "Held-out accuracy, in rounds that were evaluated.", last.evaluation_accuracy
    )


def _privacy(privacy: PrivacyReport) -> Iterator[Metric]:
    yield _gauge("privacy_epsilon", "The whole budget of differential privacy.", privacy.epsilon)
    yield _gauge("privacy_epsilon_spent", "What is spent of epsilon.", privacy.spent)
    yield _gauge("privacy_steps_left", "Local steps that the budget still allows.", privacy.steps_left)


def _machine(machine: MachineReport) -> Iterator[Metric]:
    """The figures of the device; what is not known is absent."""
    yield from _known("memory_used_bytes", "Memory of the system in use.", machine.memory_used_bytes)
    yield from _known("memory_size_bytes", "Memory of the system.", machine.memory_total_bytes)
    yield from _known("temperature_celsius", "Hottest thermal zone of the system.", machine.temperature_celsius)
    yield from _known("power_watts", "What the whole board draws.", machine.power_watts)
    gpus = machine.gpus
    yield _of_gpus("use_ratio", "Which part of the time it was busy of late.", [gpu.use for gpu in gpus])
    yield _of_gpus("memory_used_bytes", "Its own memory in use.", [gpu.memory_used_bytes for gpu in gpus])
    yield _of_gpus("memory_size_bytes", "Its own memory.", [gpu.memory_total_bytes for gpu in gpus])
    yield _of_gpus("temperature_celsius", "How hot it is.", [gpu.temperature_celsius for gpu in gpus])
    yield _of_gpus("power_watts", "What it draws.", [gpu.power_watts for gpu in gpus])


def _of_gpus(name: str, text: str, values: Sequence[float | None]) -> Metric:
    family = GaugeMetricFamily(f"decaf_node_gpu_{name}", text, labels=["gpu"])
    for number, value in enumerate(values):
        if value is not None:
            family.add_metric([str(number)], float(value))
    return family


def _peers(peers: Sequence[PeerReport]) -> Iterator[Metric]:
    counts = [peer.state for peer in peers]
    yield _states("peers", "Other members that this node knows of.", "state", PEER_STATES, counts)
    near = sorted((peer for peer in peers if peer.neighbour), key=lambda peer: peer.node)[:NEIGHBOURS]
    names = GaugeMetricFamily("decaf_node_neighbour_info", "Who the neighbours are.", labels=["peer", "name"])
    for peer in near:
        names.add_metric([peer.node, peer.name], 1.0)
    yield names
    yield _each("heard_seconds", "Time since it was last heard.", near, [peer.heard_seconds for peer in near])
    yield _each("round", "The round that it is in.", near, [peer.round for peer in near])
    yield _each("weight", "Weight of the last edge mixed with it.", near, [peer.weight for peer in near])
    yield _each(
        "distance",
        "Frobenius distance of its product to ours, at the last edge.",
        near,
        [peer.distance for peer in near],
    )
    yield _each(
        "clip_ratio", "What its distance, and harm, left of its weight.", near, [peer.clip_factor for peer in near]
    )


def _certificate(certificate: Validity) -> Iterator[Metric]:
    yield _gauge(
        "certificate_not_before_timestamp_seconds", "Its certificate is valid from then on.", certificate.begin
    )
    yield _gauge("certificate_expiry_timestamp_seconds", "Its certificate is valid until then.", certificate.end)


def _disk(disk: Disk) -> Iterator[Metric]:
    yield _gauge("state_disk_size_bytes", "Size of the file system of the state folder.", disk.size_bytes)
    yield _gauge("state_disk_free_bytes", "What may still be written there.", disk.free_bytes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"decaf_node_{name}", text, float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"decaf_node_{name}", text, float(value))


def _known(name: str, text: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield _gauge(name, text, value)


def _states(name: str, text: str, label: str, known: Sequence[str], now: Sequence[str]) -> Metric:
    """Count for each known state how often it is there now."""
    family = GaugeMetricFamily(f"decaf_node_{name}", text, labels=[label])
    for state in known:
        family.add_metric([state], float(now.count(state)))
    return family


def _each(name: str, text: str, peers: Sequence[PeerReport], values: Sequence[float | None]) -> Metric:
    family = GaugeMetricFamily(f"decaf_node_neighbour_{name}", text, labels=["peer"])
    for peer, value in zip(peers, values, strict=True):
        if value is not None:
            family.add_metric([peer.node], float(value))
    return family
