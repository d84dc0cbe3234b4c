"""The built-in trainer with private steps in this process, with a link that ends it; real model, real data, small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decaf_node.link import FromTrainer, PrivacySpent, RoundTrained, Welcome
from decaf_node.settings import Settings
from decaf_node.training.alone import LinkToNobody
from decaf_node.training.assembly import Assembled, assemble
from decaf_node.training.private.trainer import PrivateTrainer
from tests.training.tiny import classifier_settings, make_bert, topic_rows, write_rows

BUDGET: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-3, "max_grad_norm": 1.0, "steps": 6}


class Listening(LinkToNobody):
    """Notes what the trainer says. at_published: called with each round's snapshot before it is taken away."""

    def __init__(self, settings: Settings, at_published: Callable[[Path], None] = lambda path: None) -> None:
        super().__init__(settings, lambda round, loss, accuracy: None)
        self.said: list[FromTrainer] = []
        self._at_published = at_published

    def send(self, message: FromTrainer) -> None:
        self.said.append(message)
        if isinstance(message, RoundTrained):
            self._at_published(Path(message.snapshot.path))
        super().send(message)

    @property
    def budgets(self) -> list[PrivacySpent]:
        return [message for message in self.said if isinstance(message, PrivacySpent)]

    @property
    def trained(self) -> list[RoundTrained]:
        return [message for message in self.said if isinstance(message, RoundTrained)]


def private_settings(folder: Path, model: Path | None = None, **sections: dict[str, Any]) -> Settings:
    rows = write_rows(folder / "rows.jsonl", topic_rows(16))
    return classifier_settings(
        model or make_bert(folder / "bert"),
        rows,
        **{"privacy": BUDGET, "round": {"steps": 4, "limit": 9, "evaluate_every": 100}, **sections},
    )


def private_trainer(settings: Settings, folder: Path, link: Listening | None = None) -> Assembled:
    """Assemble a trainer; its account lies in ``folder``."""
    (folder / "spool").mkdir(exist_ok=True)
    welcome = Welcome("", "test", settings.model_dump(mode="json"), str(folder / "spool"), str(account_of(folder)))
    return assemble(settings, link or Listening(settings), welcome, folder)


def trainer_of(assembled: Assembled) -> PrivateTrainer:
    assert isinstance(assembled.trainer, PrivateTrainer)
    return assembled.trainer


def account_of(folder: Path) -> Path:
    return folder / "privacy.json"


def counted(folder: Path) -> int:
    """How many steps the account on disk holds."""
    if not account_of(folder).exists():
        return 0
    return sum(row["steps"] for row in json.loads(account_of(folder).read_text())["spent"])
