"""What the monitor tells and the client hears: plain values with the fields of ``monitor.proto``, units included."""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT_SECONDS = 5.0  # a watcher hears something at least so often; a daemon says it in its state


@dataclass(frozen=True)
class EdgeReport:
    """See ``Edge`` in monitor.proto. distance: NaN where it is not known any more."""

    node: str
    weight: float
    distance: float
    clip_factor: float | None = None


@dataclass(frozen=True)
class RoundReport:
    """One row of the history; see ``Round`` in monitor.proto."""

    round: int
    time: float
    steps: int
    loss: float
    train_seconds: float
    exchange_seconds: float
    mix_seconds: float
    edges: tuple[EdgeReport, ...]
    tail: float
    interference: float
    norm: float
    consensus_distance: float | None
    sent_bytes: int
    received_bytes: int
    evaluation_loss: float | None
    evaluation_accuracy: float | None
    saved: bool


@dataclass(frozen=True)
class TrainerReport:
    pid: int
    state: str
    restarts: int
    device: str
    rank: int
    parameters: int
    loss: float | None
    step: int
    steps_per_second: float


@dataclass(frozen=True)
class PrivacyReport:
    """See ``Privacy`` in monitor.proto."""

    epsilon: float
    delta: float
    spent: float
    steps: int
    steps_left: int
    noise: float


@dataclass(frozen=True)
class GpuReport:
    """See ``Gpu`` in monitor.proto."""

    name: str
    use: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None


@dataclass(frozen=True)
class RailReport:
    """See ``Rail`` in monitor.proto."""

    name: str
    power_watts: float


@dataclass(frozen=True)
class MachineReport:
    """Figures of the device; see ``Machine`` in monitor.proto."""

    gpus: tuple[GpuReport, ...]
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None
    rails: tuple[RailReport, ...] = ()
    on_battery: bool | None = None


@dataclass(frozen=True)
class PeerReport:
    node: str
    name: str
    state: str
    addresses: tuple[str, ...]
    neighbour: bool
    round: int
    heard_seconds: float | None
    weight: float | None
    distance: float | None
    plain_distance: float | None
    harm: float | None
    clip_factor: float | None
    mixes: int
    problem: str
    loss: float | None


@dataclass(frozen=True)
class StatusReport:
    node: str
    name: str
    mesh: str
    version: str
    instance: str
    phase: str
    problem: str
    round: int
    saved_round: int
    mixes: int
    degree: int
    waiting_for: tuple[str, ...]
    uptime_seconds: float
    resident_bytes: int
    address: str
    schema: str
    trainer: TrainerReport
    last_round: RoundReport | None
    sent_bytes: int
    received_bytes: int
    state_folder: str
    adapter_folder: str
    privacy: PrivacyReport | None
    machine: MachineReport | None = None
    why_paused: str = ""


@dataclass(frozen=True)
class MemberReport:
    """See ``Member`` in monitor.proto."""

    node: str
    name: str
    state: str
    round: int
    degree: int


@dataclass(frozen=True)
class LinkReport:
    """See ``Link`` in monitor.proto."""

    one: str
    other: str
    weight: float | None
    current: bool


@dataclass(frozen=True)
class TopologyReport:
    """See ``GetTopologyReply`` in monitor.proto."""

    graph: str
    topology: str
    node: str
    members: tuple[MemberReport, ...]
    links: tuple[LinkReport, ...]
    link_count: int
    turns: int


@dataclass(frozen=True)
class ApplicantReport:
    node: str
    name: str
    source: str


@dataclass(frozen=True)
class WaitingReport:
    """authority: sha256 of the mesh's certificate, hex."""

    authority: str
    waiting: tuple[ApplicantReport, ...]


@dataclass(frozen=True)
class PhaseReport:
    phase: str
    round: int


@dataclass(frozen=True)
class AlertReport:
    """Something that is wrong now; see ``Alert`` in monitor.proto."""

    id: str
    severity: str
    place: str
    since: float
    sentence: str
    remedy: str

    @property
    def words(self) -> str:
        """What is wrong and what to do about it."""
        return f"{self.sentence} {self.remedy}".rstrip()


@dataclass(frozen=True)
class ProblemReport:
    """place: what it is about; sentence: empty when it is over; alert: None then, and from older nodes."""

    place: str
    sentence: str
    alert: AlertReport | None = None


@dataclass(frozen=True)
class StateReport:
    """All that a watcher starts from; see ``WatchState`` in monitor.proto."""

    status: StatusReport
    peers: tuple[PeerReport, ...]
    problems: tuple[ProblemReport, ...]
    heartbeat_seconds: float


@dataclass(frozen=True)
class GapReport:
    missed: int


@dataclass(frozen=True)
class HeartbeatReport:
    pass


Change = RoundReport | PhaseReport | PeerReport | ProblemReport


@dataclass(frozen=True)
class EventReport:
    """What a watcher is told; see ``WatchEvent`` in monitor.proto. time: seconds since 1970."""

    instance: str
    sequence: int
    time: float
    what: Change | StateReport | GapReport | HeartbeatReport
