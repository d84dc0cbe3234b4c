"""What a budget demands of the settings, said before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decaf_node.errors import BadSettings
from decaf_node.link import FromTrainer, Message, TrainerFailed, Welcome
from decaf_node.settings import Settings, parse_settings
from decaf_node.training import worker
from decaf_node.training.private import demands
from tests.training.tiny import classifier_settings

HERE = Path(".")
BUDGET: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-3, "max_grad_norm": 1.0, "steps": 20}


def private(**sections: dict[str, Any]) -> Settings:
    return classifier_settings(HERE, HERE, **{"privacy": BUDGET, **sections})


def reasons(settings: Settings) -> list[str]:
    return [objection.reason for objection in demands.objections(settings)]


def test_a_plain_budget_is_fine_and_without_one_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons(private()) == []
    demands.check(private())
    monkeypatch.setattr(demands, "find_spec", lambda name: None)
    assert reasons(classifier_settings(HERE, HERE, training={"trainer": "external"})) == []


def test_opacus_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands, "find_spec", lambda name: None)
    with pytest.raises(BadSettings) as caught:
        demands.check(private())
    assert caught.value.reason == "privacy.no-opacus"
    assert caught.value.exit_code == 78
    assert "decaf-node[privacy]" in caught.value.message


@pytest.mark.parametrize(
    "argument",
    [
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"max_grad_norm": 0.5},
        {"fp16": True},
        {"bf16": True},
        {"torch_compile": True},
        {"label_smoothing_factor": 0.1},
        {"use_liger_kernel": True},
        {"deepspeed": "ds.json"},
        {"fsdp": "full_shard"},
        {"auto_find_batch_size": True},
        {"train_sampling_strategy": "group_by_length"},
        {"optim": "adalomo"},
        {"optim": "galore_adamw_layerwise"},
    ],
)
def test_what_mixes_examples_or_scales_gradients_is_refused_by_name(argument: dict[str, Any]) -> None:
    (objection,) = demands.objections(private(training={"arguments": argument}))
    assert objection.reason == "privacy.argument"
    assert next(iter(argument)) in objection.message


def test_the_same_arguments_at_rest_are_fine() -> None:
    still = {"gradient_accumulation_steps": 1, "bf16": False, "label_smoothing_factor": 0.0, "optim": "sgd"}
    assert reasons(private(training={"arguments": still})) == []


def test_a_script_of_ones_own_is_refused() -> None:
    assert reasons(private(training={"trainer": "external"})) == ["privacy.external-trainer"]


def test_losses_on_held_out_data_do_not_leave_in_the_weights() -> None:
    assert reasons(private(security={"robust": "score"})) == ["privacy.score"]


def test_how_frequent_labels_are_is_not_told() -> None:
    assert reasons(private(training={"balance_labels": True})) == ["privacy.balance"]


def test_a_budget_needs_a_plan() -> None:
    bare = {key: value for key, value in BUDGET.items() if key != "steps"}
    assert reasons(private(privacy=bare)) == ["privacy.no-plan"]
    assert reasons(private(privacy=bare, round={"steps": 0, "limit": 5})) == ["privacy.no-plan"]
    planned = private(privacy=bare, round={"steps": 3, "limit": 5})
    assert reasons(planned) == []
    assert demands.planned_steps(planned) == 15
    assert demands.planned_steps(private(round={"steps": 3, "limit": 5})) == 20


@pytest.mark.parametrize(
    "section",
    [
        {"epsilon": 8.0},
        {"epsilon": 8.0, "delta": 1e-5},
        {"max_grad_norm": 1.0},
        {**BUDGET, "epsilon": 0.0},
        {**BUDGET, "epsilon": float("inf")},
        {**BUDGET, "delta": 1.0},
        {**BUDGET, "delta": 0.0},
        {**BUDGET, "max_grad_norm": 0.0},
        {**BUDGET, "steps": 0},
        {**BUDGET, "share_metrics": True},
    ],
)
def test_what_does_not_go_together_is_no_setting(section: dict[str, Any]) -> None:
    document = {"model": {"path": "m"}, "data": {"train": ["d"]}, "privacy": section}
    with pytest.raises(BadSettings) as caught:
        parse_settings(document, "here")
    assert caught.value.reason == "settings.bad-value"
    assert "privacy" in caught.value.message


class WelcomingLink:
    """Greets the trainer, and notes what it says."""

    def __init__(self, welcome: Welcome) -> None:
        self.welcome = welcome
        self.said: list[FromTrainer] = []

    def send(self, message: FromTrainer) -> None:
        self.said.append(message)

    def poll(self) -> Message | None:
        return None

    def wait(self) -> Message:
        return self.welcome

    def wait_for(self, seconds: float) -> Message | None:
        return None

    def close(self) -> None:
        return


def test_what_only_a_step_finds_out_is_told_as_final(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        trainer: Any

        def train(self) -> None:
            raise BadSettings("privacy.not-by-example", "A layer sees tokens.")

    Trainer.trainer = Trainer()
    monkeypatch.setattr("decaf_node.training.assembly.assemble", lambda *_: Trainer())
    link = WelcomingLink(Welcome("", "", private().model_dump(mode="json"), "spool"))
    with pytest.raises(BadSettings):
        worker._work(link)
    assert link.said[-1] == TrainerFailed("privacy.not-by-example", "A layer sees tokens.", 78, True)
