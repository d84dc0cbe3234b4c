"""The Trainer's side of a session: saving, restoring and scoring what only transformers' Trainer holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from torch import nn

from decaf_node.link import EXPORT_FOLDER, LABELS_LIMIT, File
from decaf_node.lowrank.codec import write_snapshot
from decaf_node.lowrank.mixing import adopt
from decaf_node.settings import Settings
from decaf_node.training.data import Position, Stream
from decaf_node.training.evaluate import Evaluation
from decaf_node.training.exchange import Identity
from decaf_node.training.export import write_export
from decaf_node.training.live import LiveAdapter
from decaf_node.training.spool import cannot_write, fetch, named_file, show
from decaf_node.training.state import Progressed, load_trainer_state, restore_generators, save_trainer_state

Evaluator = Callable[[Callable[[], None]], Evaluation | None]
ADAPTER_FILE = "adapter.safetensors"
TRAINER_FILE = "trainer.safetensors"
logger = logging.getLogger(__name__)


class Account(Protocol):
    """What the host asks of an account of the privacy budget; see ``private.account``."""

    def check_covers(self, trained: int) -> None:
        """Raise BadSettings if a saved adapter has had more steps than were counted."""

    def keep(self) -> None:
        """Make the count durable."""


class Labels(Protocol):
    """What the host asks of a loss that weighs labels; see ``balance.BalancedLoss``."""

    @property
    def own(self) -> tuple[float, ...]:
        """The part of the node's own examples that each label has."""

    @property
    def mesh(self) -> tuple[float, ...]:
        """The part that each has in the whole mesh; empty while that is not known."""

    def weigh(self, mesh: Sequence[float]) -> None:
        """Weigh labels from now on as in these parts of them in the whole mesh."""


class TrainerHost:
    """See ``session.Host`` and ``ranks.Trained``.

    step: optimizer steps of this process. batch: the examples of one, of all processes together.
    """

    def __init__(
        self,
        model: Any,
        live: LiveAdapter,
        optimizer: Any,
        scheduler: Any,
        settings: Settings,
        identity: Identity,
        batch: int,
        evaluate: Evaluator | None,
        stream: Stream | None,
        account: Account | None = None,
        labels: Labels | None = None,
    ) -> None:
        self._model = model
        self._live = live
        self._optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        self._scheduler = scheduler
        self._settings = settings
        self._identity = identity
        self._batch = batch
        self._evaluate = evaluate
        self._stream = stream
        self._account = account
        self._labels = labels
        self._start = Progressed(0, Position())
        self._generators: Mapping[str, Any] | None = None
        self.step = 0
        self.restored: tuple[File, File | None] | None = None

    @property
    def loads(self) -> int:
        """How often the adapter was changed by anything but a step."""
        return self._live.loads

    @property
    def own_labels(self) -> tuple[float, ...]:
        own = () if self._labels is None else self._labels.own
        return own if len(own) <= LABELS_LIMIT else ()

    @property
    def mesh_labels(self) -> tuple[float, ...]:
        """The parts of labels that they are weighed by; empty where they are not, or are all alike."""
        return () if self._labels is None else self._labels.mesh

    def weigh_labels(self, mesh: Sequence[float]) -> None:
        if self._labels is not None:
            self._labels.weigh(mesh)

    def named(self) -> Mapping[str, nn.Parameter]:
        return self._live.named()

    def restore(self, snapshot: File, trainer: File | None) -> None:
        self.restored = snapshot, trainer
        saved = fetch(snapshot, self._live.device)[1]
        if self._live.fits(saved):
            self._live.load(saved)
        else:  # the settings ask for another rank or scale now: keep what was learned, as well as that holds it
            logger.warning("The saved adapter has other ranks or scales than the settings; it is converted.")
            now = self._live.read()
            self._live.load(adopt(saved, now, now))
        if trainer is None:
            return
        self._start, self._generators = load_trainer_state(
            Path(trainer.path), self._live.named(), self._optimizer, self._scheduler
        )
        self.weigh_labels(self._start.labels)
        if self._account is not None:
            self._account.check_covers(self._start.step)
        if self._stream is not None:
            self._stream.seek(self._start.position)

    def restore_generators(self) -> None:
        """Set the random generators as they were saved, once, right before the first step."""
        if self._generators is not None:
            restore_generators(self._generators)
            self._generators = None

    def save(self, folder: Path, round: int) -> tuple[File, File, Path]:
        adapter, trainer, export = folder / ADAPTER_FILE, folder / TRAINER_FILE, folder / EXPORT_FOLDER
        position = self._stream.position(self.step * self._batch) if self._stream is not None else Position()
        progressed = Progressed(self._start.step + self.step, position, self.mesh_labels)
        if self._account is not None:
            self._account.keep()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            identity = self._identity
            write_snapshot(
                adapter, self._live.read(), wire="float32", schema=identity.schema, base=identity.base, round=round
            )
            save_trainer_state(trainer, self._live.named(), self._optimizer, self._scheduler, progressed)
            write_export(export, self._model, self._settings.model, identity.base)
            if folder.stat().st_uid != os.geteuid():
                for file in (adapter, trainer, *export.iterdir()):
                    show(file)
            return named_file(adapter), named_file(trainer), export
        except (OSError, SafetensorError) as error:
            raise cannot_write(folder, error) from error

    def evaluate(self, between: Callable[[], None]) -> Evaluation | None:
        return self._evaluate(between) if self._evaluate is not None else None
