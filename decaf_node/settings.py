"""The settings of a node: TOML and environment into frozen models. An unknown key is an error.

Every key can also come from the environment as ``DECAF_NODE__SECTION__KEY`` (the value in TOML notation, or a
plain string). Durations are seconds; any other unit is a suffix of the name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from decaf_node.errors import BadSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "DECAF_NODE__"
MIB = 1024 * 1024
LEAST_UPLOAD = 16 * 1024  # bytes a second: with 16 neighbours each gets what they wait for by default

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the settings; nothing unknown gets in and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSection(Section):
    name: str = Field("", description="what people call this node; default: the host's name")


class MeshSection(Section):
    name: str = Field("home", min_length=1, max_length=63, description="nodes of another mesh are ignored")
    peers: tuple[str, ...] = Field((), description="addresses host:port that are tried for ever, beside mDNS")
    topology: Literal[
        "auto", "full", "ring", "torus", "exponential", "random-regular", "one-peer-exponential", "base-k"
    ] = Field(
        "auto",
        description="who mixes with whom, the same at all nodes; auto: full up to 8 members, else random-regular; "
        "the last two: one partner a round",
    )


class ListenSection(Section):
    address: str = Field("127.0.0.1", description="address to listen on for other nodes")
    port: Port = Field(7433, description="TCP port; 0 takes a free one")
    enrolment_port: Port = Field(7434, description="TCP port for devices that join, open only while one is expected")


class SecuritySection(Section):
    insecure: bool = Field(False, description="plaintext instead of TLS, and anyone is a member, beyond loopback too")
    robust: Literal["off", "clip", "score"] = Field(
        "clip",
        description="clip: neighbours far off count for less, which costs honest meshes nothing; score: also those "
        "whose adapter harms this node's held-out loss, by two evaluations of a slice a neighbour and round",
    )
    ca: Path | None = Field(None, description="PEM file of an outside authority, instead of the mesh's own")
    certificate: Path | None = Field(None, description="PEM file of this node's certificate from it, with its chain")
    key: Path | None = Field(None, description="PEM file of the key of that certificate")
    crl: Path | None = Field(None, description="PEM or DER file of revocation lists of that authority")
    certificate_lifetime: Seconds = Field(
        365 * 86400.0, ge=60, description="of the certificates signed here; renewed when a third of it is left"
    )

    @model_validator(mode="after")
    def _all_of_it_or_none(self) -> SecuritySection:
        if len({path is None for path in (self.ca, self.certificate, self.key)}) > 1:
            raise ValueError("ca, certificate and key go together")
        if self.crl is not None and self.ca is None:
            raise ValueError("crl is of an outside authority; set ca, certificate and key too")
        return self


class MonitorSection(Section):
    listen: str = Field("", description="host:port for operators on other devices, by mutual TLS; empty: nobody")
    operators: tuple[str, ...] = Field(
        (), description="node IDs of members that may also act there (pause, invite, revoke, ...); others only look"
    )
    metrics: str = Field("", description="host:port of GET /metrics for Prometheus, as 127.0.0.1:7436; empty: off")
    metrics_open: bool = Field(False, description="metrics beyond loopback too: plain HTTP to anyone who asks")
    otlp: str = Field(
        "", description="where the same figures are sent to by OTLP, as http://host:4318 (extra otel); empty: nowhere"
    )
    otlp_every: Seconds = Field(60.0, ge=1, description="how often they are sent")
    dashboard: bool = Field(
        False, description="serve a web page of this node on loopback, to every user of this machine"
    )
    dashboard_port: Port = Field(7437, description="TCP port of that page; 0 takes a free one")


class PrivacySection(Section):
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="differential privacy of each training example: the whole budget; unset: off"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="how likely the promise may fail; below 1 / number of examples"
    )
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="what one example may change at most in a step: its gradient is clipped to this norm"
    )
    steps: Count | None = Field(
        None, description="local steps that the budget is to last; unset: round.limit times round.steps"
    )
    share_metrics: bool = Field(False, description="tell the members the training loss of the last round")
    share_labels: bool = Field(
        True, description="of a classifier: tell the members which part of the examples here each label has"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> PrivacySection:
        if len({value is None for value in (self.epsilon, self.delta, self.max_grad_norm)}) > 1:
            raise ValueError("epsilon, delta and max_grad_norm go together")
        if self.epsilon is not None and self.share_metrics:
            raise ValueError("share_metrics tells losses, which the budget of epsilon does not cover; set one of them")
        return self


class DiscoverySection(Section):
    mdns: bool = Field(True, description="announce this node on the LAN and look for others")
    interfaces: tuple[str, ...] = Field((), description="interface names or addresses; empty: all but the skipped")
    skip: tuple[str, ...] = Field(
        ("lo", "docker*", "br-*", "veth*", "virbr*", "cni*", "flannel*", "tun*", "tap*", "l4tbr*", "rndis*", "usb*"),
        description="patterns of interfaces never used unless named above",
    )
    refresh: Seconds = Field(10.0, gt=0, description="browse again this often: after a partition mDNS forgets to")


class ModelSection(Section):
    path: Path = Field(description="folder of the base model, as transformers saves it")
    gguf_file: str = Field("", description="name of a GGUF file in that folder, read by transformers")
    task: Literal["causal-lm", "sequence-classification", "image-classification", "clip"] = Field(
        "causal-lm", description="what is trained; clip: images and captions, by contrast"
    )
    pooling: Literal["head", "mean"] = Field("head", description="the stock classification head, or mean pooling")
    labels: tuple[str, ...] = Field((), description="the label list, the same at every node")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the frozen base")
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none",
        description="of the frozen base, by bitsandbytes (extra quantized); 4bit computes in dtype, 8bit in float16; "
        "causal-lm only",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    cache_lower_layers: bool = Field(False, description="keep the activations below the first adapted layer")
    trust_remote_code: bool = Field(False, description="run Python code that lies in the model folder")
    allow_pickle: bool = Field(False, description="load pickled weights; they can run any code")

    @property
    def classifies(self) -> bool:
        """Say whether the task needs a head with a class for each label."""
        return self.task in ("sequence-classification", "image-classification")

    @property
    def sees_images(self) -> bool:
        """Say whether the data are folders of images."""
        return self.task in ("image-classification", "clip")

    @model_validator(mode="after")
    def _quantizes_a_language_model(self) -> ModelSection:
        if self.quantization != "none" and (self.task != "causal-lm" or self.gguf_file):
            raise ValueError("quantization is for task causal-lm, and for a model in safetensors")
        return self


class DataSection(Section):
    train: tuple[Path, ...] = Field(
        min_length=1, description="JSONL, CSV or Parquet files, or folders of images; or patterns of them"
    )
    evaluation: tuple[Path, ...] = Field(
        (), description="held-out files, or folders; empty: a part of the training data"
    )
    evaluation_fraction: float = Field(0.1, ge=0, lt=1, description="the part held out where no files are given")
    text_column: str = Field("text", description="the column to learn from")
    label_column: str = Field("label", description="the column of the classes")
    caption: str = Field(
        "a photo of a {label}.", description="of clip: the caption of an image without one, and the prompt of a label"
    )
    messages_column: str = Field("", description="chat messages, rendered by the tokenizer's template")
    prompt_column: str = Field("", description="text whose loss is masked; text_column is then the answer")
    max_length: Count = Field(512, description="tokens an example")
    cache_entries: Count = Field(20_000, description="most examples whose activations are kept")

    @field_validator("caption")
    @classmethod
    def _names_the_label(cls, caption: str) -> str:
        if "{label}" not in caption:
            raise ValueError(f"{caption!r} does not hold {{label}}, in whose place the label is put")
        return caption


class TrainingSection(Section):
    trainer: Literal["built-in", "external"] = Field("built-in", description="external: your script with DecafCallback")
    seed: int = Field(0, ge=0, description="of everything drawn while training")
    processes: Count = Field(
        1, description="of the built-in trainer, one a GPU: a step takes a batch at each, and averages their gradients"
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch, a process; 0: torch decides")
    balance_labels: bool | None = Field(
        None,
        description="of a classifier: learn as if the labels here were as frequent as in the whole mesh, as far as "
        "its members tell (privacy.share_labels) and agree, else all alike; unset: yes, except with privacy.epsilon",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="anything of transformers' TrainingArguments")


class RoundSection(Section):
    algorithm: Literal["decaf", "dlora", "dlora-fa", "local"] = Field("decaf", description="how snapshots are mixed")
    steps: int = Field(0, ge=0, description="local steps a round; 0: by seconds")
    seconds: Seconds = Field(300.0, gt=0, description="length of a round where steps is 0")
    overlap: bool = Field(True, description="go on training while the edges are exchanged")
    evaluate_every: Count = Field(1, description="rounds between evaluations")
    adopt_after: Seconds = Field(7 * 86400.0, description="a node absent for longer adopts the mesh's state")
    wait_floor: Seconds = Field(1.0, description="never wait less than this for an alive neighbour")
    wait_ceiling: Seconds = Field(120.0, description="never wait longer than this for anyone")
    limit: int = Field(0, ge=0, description="train this many rounds and then only serve; 0: for ever")

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> RoundSection:
        if self.wait_floor > self.wait_ceiling:
            raise ValueError("wait_floor is above wait_ceiling")
        return self


class MixingSection(Section):
    wire: Literal["float32", "bfloat16", "float16", "int8", "compact"] = Field(
        "float32",
        description="format of what is sent; int8: with a scale for each direction, a quarter of the bytes; compact: "
        "in steps that leave a tenth of the adapter's norm as error, and deflated, about a tenth of the bytes, not for "
        "dlora and dlora-fa",
    )
    memory_bytes: int = Field(256 * MIB, ge=MIB, description="most memory of a mix beyond inputs and outputs")
    initial_a_seed: int = Field(0, ge=0, description="seed of the first A; dlora-fa needs the same everywhere")


class StoreSection(Section):
    save_every: Seconds = Field(
        60.0, description="save a round durably at most this often, to spare flash memory, unless limits force it"
    )
    keep: Count = Field(2, description="saved rounds kept on disk")
    history: Count = Field(100_000, description="rows of the history of rounds")


class ResourcesSection(Section):
    """Other work on the device comes first: while one of these says so, the node is paused."""

    only_on_ac_power: bool = Field(False, description="pause while the device runs on battery")
    only_between: str = Field("", description="hours to train in, as 22:00-06:00, local time; empty: all")
    below_celsius: float | None = Field(
        None, gt=0, description="pause at this temperature of device or GPU, until it is 5 degrees cooler; unset: never"
    )
    yield_gpu: bool = Field(
        False,
        description="pause while another process keeps a GPU busy, by a tenth or more; NVIDIA's driver tells, but not "
        "on a Jetson or in a container; the trainer keeps its memory there",
    )

    @field_validator("only_between")
    @classmethod
    def _is_two_times(cls, text: str) -> str:
        if text and _hours(text) is None:
            raise ValueError(f"{text!r} is not two different times of day, as 22:00-06:00")
        return text

    @property
    def hours(self) -> tuple[int, int] | None:
        """Return ``only_between`` as two minutes of the day; None where it is empty."""
        return _hours(self.only_between)


class LimitsSection(Section):
    """The bound of every queue, message, retry and file count."""

    snapshot_bytes: int = Field(
        2048 * MIB, ge=1, description="largest snapshot taken from a peer; of compact, inflated"
    )
    spool_bytes: int = Field(
        4096 * MIB, ge=1, description="most bytes of snapshots in flight; half of it forces a save"
    )
    chunk_bytes: int = Field(
        MIB // 4,
        ge=1024,
        le=MIB,
        description="largest piece of a snapshot in one message; of each that is sent, four are read at once",
    )
    peers: Count = Field(1024, description="most members remembered")
    events: Count = Field(1024, description="most events that wait for their turn in the node")
    streams: Count = Field(256, description="most edges with other nodes at a time")
    calls: Count = Field(50, description="most calls that a member may make in a second")
    least_rate_bytes: Count = Field(
        1024,
        description="a snapshot that comes or goes by less a second, over two minutes and in whole pieces, is given up",
    )
    upload_bytes_per_second: int = Field(
        0,
        ge=0,
        description="most bytes of snapshots sent in a second, to all neighbours together, who take turns; 0: any "
        f"number, else at least {LEAST_UPLOAD:,}: neighbours give up what comes by less than their least_rate_bytes",
    )
    connections: Count = Field(512, description="most connections of other nodes at a time")
    invitations: Count = Field(32, description="most invitations that are open at a time")
    waiting: Count = Field(64, description="most devices that wait for approval at a time")
    adopt_from: Count = Field(5, description="most members asked for their state by a newcomer")
    unsaved_receipts: Count = Field(64, description="edges mixed since the last save before one is forced")
    trainer_restarts: Count = Field(5, description="crashes of the trainer in a row, without a round, before giving up")
    trainer_backoff: Seconds = Field(60.0, description="longest wait before the trainer is started again")
    trainer_silence: Seconds = Field(
        1800.0,
        gt=0,
        description="a built-in trainer that says nothing for so long while it is to work, in a step say, is started "
        "again",
    )
    redial_backoff: Seconds = Field(30.0, description="longest wait before a lost address is tried again")
    link_bytes: Count = Field(MIB, description="longest message between daemon and trainer")
    stop: Seconds = Field(9.0, description="a clean stop is over by then")

    @field_validator("upload_bytes_per_second")
    @classmethod
    def _lets_snapshots_through(cls, rate: int) -> int:
        if 0 < rate < LEAST_UPLOAD:
            raise ValueError(f"{rate} is too little for neighbours to wait for; take {LEAST_UPLOAD} or more, or 0")
        return rate


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is said")
    format: Literal["auto", "plain", "json"] = Field("auto", description="auto: plain")


class Settings(Section):
    """All of it."""

    node: NodeSection = NodeSection()
    mesh: MeshSection = MeshSection()
    listen: ListenSection = ListenSection()
    security: SecuritySection = SecuritySection()
    monitor: MonitorSection = MonitorSection()
    privacy: PrivacySection = PrivacySection()
    discovery: DiscoverySection = DiscoverySection()
    model: ModelSection
    lora: dict[str, Any] = Field(default_factory=dict, description="anything of PEFT's LoraConfig")
    data: DataSection
    training: TrainingSection = TrainingSection()
    round: RoundSection = RoundSection()
    mixing: MixingSection = MixingSection()
    store: StoreSection = StoreSection()
    resources: ResourcesSection = ResourcesSection()
    limits: LimitsSection = LimitsSection()
    log: LogSection = LogSection()

    @field_validator("lora")
    @classmethod
    def _rank_is_positive(cls, lora: dict[str, Any]) -> dict[str, Any]:
        rank = lora.get("r", 1)
        if type(rank) is not int or rank < 1:
            raise ValueError(f"r is {rank!r}; a rank is a whole number from 1")
        return lora

    @model_validator(mode="after")
    def _sends_a_as_it_is(self) -> Settings:
        if self.round.algorithm == "dlora-fa" and self.mixing.wire == "int8":
            raise ValueError(
                "round.algorithm dlora-fa needs the same A everywhere, which int8 rounds; "
                "set mixing.wire to another dtype"
            )
        if self.round.algorithm in ("dlora", "dlora-fa") and self.mixing.wire == "compact":
            raise ValueError(
                f"round.algorithm {self.round.algorithm} mixes factors as they are, and compact splits their product "
                "anew; set mixing.wire to another format"
            )
        return self


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read the settings at ``path``, with what the environment sets on top.

    Relative paths in the file are taken from the file's own folder.
    Raises BadSettings, naming the key, if the file is missing, is not TOML, or holds a key or value that does not fit.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadSettings(
            "settings.missing", f"There are no settings at {path}; write them there or name a file with --config."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings("settings.unreadable", f"The settings {path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise BadSettings("settings.not-toml", f"The settings {path} are not valid TOML: {error}.") from error
    return complete(document, environ, str(path), path.absolute().parent)


def complete(document: dict[str, Any], environ: Mapping[str, str], source: str, folder: Path) -> Settings:
    """Check a document with what the environment sets on top; relative paths are taken from ``folder``.

    Raises BadSettings, as ``parse_settings``.
    """
    _apply_environment(document, environ)
    return _anchored(parse_settings(document, source), folder)


def parse_settings(document: Mapping[str, Any], source: str) -> Settings:
    """Check a document of settings; ``source`` names it in what is raised (BadSettings)."""
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadSettings(
                "settings.unknown-key",
                f"The settings {source} have an unknown key {key}; take it out or mend its name.",
            ) from None
        problem = first["msg"].removeprefix("Value error, ")
        what = f"{key} does not fit" if key else "one section does not fit another"
        raise BadSettings("settings.bad-value", f"In the settings {source}, {what}: {problem}.") from None


def _apply_environment(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise BadSettings(
                    "settings.bad-value", f"{name} is set, but {section} is not a section of the settings."
                )
        place[key] = _toml_value(environ[name])


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _hours(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if found is None:
        return None
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    return None if start == end else (start, end)


def _anchored(settings: Settings, folder: Path) -> Settings:
    model = settings.model.model_copy(update={"path": folder / settings.model.path})
    data = settings.data.model_copy(
        update={
            "train": tuple(folder / path for path in settings.data.train),
            "evaluation": tuple(folder / path for path in settings.data.evaluation),
        }
    )
    files = {name: getattr(settings.security, name) for name in ("ca", "certificate", "key", "crl")}
    files = {name: folder / path for name, path in files.items() if path is not None}
    security = settings.security.model_copy(update=files)
    return settings.model_copy(update={"model": model, "data": data, "security": security})
