"""The messages between daemon and trainer: JSON lines over one local Unix socket, tensors by file.

The trainer connects and says ``TrainerConnected``; the daemon answers ``Welcome``; the trainer loads its model and
says ``TrainerReady``; the daemon answers ``StartTraining``. After that each side speaks when it has something to
say. Files are named by path and digest (hex sha256); they are whole when they are named.

One round, as the trainer sees it: it trains ``steps`` steps (or ``seconds``), writes its snapshot into the spool and
says ``RoundTrained``. With overlap it trains on; without, it waits. Then ``MixRound`` comes (always, even without an
edge): the trainer applies the correction, answers ``RoundMixed``, and the next round begins.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from decaf_node.errors import BadData

VERSION = 3
LABELS_LIMIT = 1024  # of a classifier; how frequent each of more is is not told


@dataclass(frozen=True)
class File:
    """A file in the spool or the state folder, by absolute path and hex sha256 of its bytes."""

    path: str
    digest: str
    size_bytes: int


EXPORT_FOLDER = "export"  # in the folder that ``SaveState`` names

# --- trainer to daemon -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainerConnected:
    pid: int
    version: int = VERSION


@dataclass(frozen=True)
class TrainerReady:
    """The model is loaded. schema: what must agree between two nodes; parts: the same in words (JSON values).

    label_parts: of the node's own examples, where labels are weighed
    """

    schema: str
    base: str
    rank: int
    parameters: int
    device: str
    parts: dict[str, Any]
    label_parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Training goes on: at most one a second. loss: mean over the steps so far, where it is known yet."""

    round: int
    step: int
    loss: float | None
    steps_per_second: float


@dataclass(frozen=True)
class RoundTrained:
    """The local steps of ``round`` are done and its snapshot lies in the spool. loss: mean over these steps.

    steps is 0 once the privacy budget is spent; loss is 0 then. label_parts: as in ``TrainerReady``, as they are now.
    """

    round: int
    snapshot: File
    rank: int
    steps: int
    loss: float
    seconds: float
    label_parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class PrivacySpent:
    """How the privacy budget stands, at the start and after each round. spent: of epsilon, for this delta.

    steps: ever taken; left: how many more there are. noise: standard deviation, in clipped gradients.
    """

    epsilon: float
    delta: float
    spent: float
    steps: int
    left: int
    noise: float


@dataclass(frozen=True)
class SnapshotInspected:
    """What a neighbour's snapshot is like. distance: Frobenius, of what is mixed, over all layers, to our own.

    norm: of our own, measured like it. plain_distance, plain_norm: the same of all tensors that are averaged plainly.
    harm: what a half-way mix adds to our held-out loss, in parts of the untrained one (``security.robust = "score"``).
    """

    digest: str
    finite: bool
    distance: float
    norm: float
    problem: str = ""
    plain_distance: float = 0.0
    plain_norm: float = 0.0
    harm: float = 0.0


@dataclass(frozen=True)
class RoundMixed:
    """The mix of ``round`` is loaded. tail: Frobenius norm of what the truncation cut, over all layers.

    interference: Frobenius norm of the error that averaging the factors would have made (ALGORITHM: factor
    cross-covariance). norm: of our own product after the mix.
    """

    round: int
    edges: int
    tail: float
    interference: float
    norm: float
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """The held-out part, after the mix of ``round``. accuracy is None where the task has none."""

    round: int
    loss: float
    accuracy: float | None
    examples: int
    seconds: float


@dataclass(frozen=True)
class EvaluatedNow:
    """The answer to ``Evaluate``. round: the last that is mixed; examples: 0 where there is no held-out part."""

    round: int
    loss: float
    accuracy: float | None
    examples: int
    seconds: float


@dataclass(frozen=True)
class StateSaved:
    """The state after ``round`` lies in the folder named by ``SaveState``; not yet durable (the daemon sees to it)."""

    round: int
    snapshot: File
    trainer: File
    export: str


@dataclass(frozen=True)
class SaveFailed:
    round: int
    problem: str


@dataclass(frozen=True)
class StateAdopted:
    """The state of ``chosen`` is ours now, plus our own unshared change. round: the chosen snapshot's round."""

    round: int
    chosen: str


@dataclass(frozen=True)
class TrainerFailed:
    """The trainer's last words: an error for a person. fatal: starting it again cannot help."""

    reason: str
    message: str
    exit_code: int
    fatal: bool


# --- daemon to trainer -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Welcome:
    """settings: ``Settings.model_dump(mode="json")``. spool: where snapshots go, named ``<sha256>.safetensors``.

    account: file in which the trainer counts what is spent of the privacy budget.
    """

    node: str
    name: str
    settings: dict[str, Any]
    spool: str
    account: str = ""


@dataclass(frozen=True)
class StartTraining:
    """Begin the local steps of ``round``, from the saved state if there is one, else afresh."""

    round: int
    snapshot: File | None = None
    trainer: File | None = None


@dataclass(frozen=True)
class EndRound:
    """End the local steps of ``round`` with the next one, if they are still under way."""

    round: int


@dataclass(frozen=True)
class Evaluate:
    """Score the held-out part with the adapter as it is; answered by ``EvaluatedNow``. Training waits meanwhile."""


@dataclass(frozen=True)
class InspectSnapshot:
    """Answered by ``SnapshotInspected``. own: our snapshot that the edge pairs it with."""

    snapshot: File
    own: File


@dataclass(frozen=True)
class MixEdge:
    """Add ``weight * (theirs - own)`` in product space (plainly for other tensors)."""

    peer: str
    weight: float
    own: File
    theirs: File


@dataclass(frozen=True)
class MixRound:
    """Answered by ``RoundMixed`` (and ``Evaluated`` where it is due). Without edges nothing changes.

    label_parts: in the whole mesh, as far as its nodes agree; empty where the trainer has told none, or nobody has yet
    """

    round: int
    edges: tuple[MixEdge, ...] = ()
    label_parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class AdoptState:
    """Take the medoid of ``candidates`` as our state, plus our change since ``base`` (None: since the start)."""

    candidates: tuple[File, ...]
    base: File | None = None


@dataclass(frozen=True)
class SaveState:
    """Write adapter, trainer state and export folder under ``folder``; answered by ``StateSaved`` or ``SaveFailed``."""

    round: int
    folder: str


@dataclass(frozen=True)
class Pause:
    """Stop at the next step, and wait."""


@dataclass(frozen=True)
class Resume:
    """Go on."""


@dataclass(frozen=True)
class Stop:
    """Stop at the next step and exit 0; anything to save was asked for before."""


FromTrainer = (
    TrainerConnected
    | TrainerReady
    | Progress
    | RoundTrained
    | PrivacySpent
    | SnapshotInspected
    | RoundMixed
    | Evaluated
    | EvaluatedNow
    | StateSaved
    | SaveFailed
    | StateAdopted
    | TrainerFailed
)
ToTrainer = (
    Welcome
    | StartTraining
    | EndRound
    | Evaluate
    | InspectSnapshot
    | MixRound
    | AdoptState
    | SaveState
    | Pause
    | Resume
    | Stop
)
Message = FromTrainer | ToTrainer

_KINDS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (*FromTrainer.__args__, *ToTrainer.__args__)
}


def encode(message: Message) -> bytes:
    """Return ``message`` as one line of JSON (infinities and NaN as in Python's json)."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in ``line``. Raises BadData if it is not one."""
    try:
        document = json.loads(line)
        adapter = _KINDS[document.pop("kind")]
        message: Message = adapter.validate_python(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise BadData(
            "link.not-a-message",
            f"The trainer link carried something else than a message: {' '.join(str(error).split())}.",
        ) from error
    return message
