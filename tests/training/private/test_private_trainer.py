"""Private steps of the real Trainer: what trains is the model's own adapter, an example at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decaf_node.errors import BadData, BadSettings
from decaf_node.lowrank.codec import read_snapshot
from decaf_node.training.assembly import Assembled
from decaf_node.training.examples import collate
from decaf_node.training.live import check_trains, find_adapter
from decaf_node.training.private.examples import check_gradients, example_losses
from decaf_node.training.private.spending import epsilon_of
from decaf_node.training.private.trainer import check_model
from tests.training.private.setup import (
    BUDGET,
    Listening,
    account_of,
    counted,
    private_settings,
    private_trainer,
    trainer_of,
)
from tests.training.tiny import causal_settings, make_llama, topic_rows, write_rows

pytestmark = pytest.mark.slow


def weights(assembled: Assembled) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in find_adapter(assembled.model).named().items()}


def differ(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_models_own_weights_change_and_are_what_is_published(tmp_path: Path) -> None:
    settings = private_settings(tmp_path)
    published = []
    link = Listening(settings, lambda path: published.append(read_snapshot(path)[1]))
    assembled = private_trainer(settings, tmp_path, link)
    frozen = {name: p.detach().clone() for name, p in assembled.model.named_parameters() if not p.requires_grad}
    before = weights(assembled)
    assembled.trainer.train()
    after = weights(assembled)
    assert differ(before, after) == before.keys()  # each factor and the head: noise leaves nothing out
    now = dict(assembled.model.named_parameters())
    assert all(torch.equal(tensor, now[name]) for name, tensor in frozen.items())
    first, last = published
    assert all(not torch.equal(first.products[name].b, last.products[name].b) for name in first.products)
    for name, product in last.products.items():
        assert torch.equal(product.a, after[f"{name}.lora_A.weight"])
        assert torch.equal(product.b, after[f"{name}.lora_B.weight"])


def test_a_wrapper_that_trains_a_copy_is_refused(tmp_path: Path) -> None:
    """The trap: losses fall, and the adapter that is published never changes."""
    assembled = private_trainer(private_settings(tmp_path), tmp_path)
    live = find_adapter(assembled.model)
    check_trains(trainer_of(assembled).create_optimizer(), live)
    other = copy.deepcopy(assembled.model)
    with pytest.raises(BadSettings) as caught:
        check_trains(torch.optim.SGD(other.parameters(), lr=0.1), live)
    assert caught.value.reason == "training.other-weights"


def test_training_on_a_copy_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembled = private_trainer(private_settings(tmp_path), tmp_path)
    trainer = trainer_of(assembled)
    other = copy.deepcopy(assembled.model)
    monkeypatch.setattr(trainer, "create_optimizer", lambda: setattr(trainer, "optimizer", sgd(other)))
    with pytest.raises(BadSettings) as caught:
        trainer.train()
    assert caught.value.reason == "training.other-weights"


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def test_training_stops_with_the_budget_and_each_step_is_counted(tmp_path: Path) -> None:
    settings = private_settings(tmp_path)
    kept = []
    link = Listening(settings, lambda path: kept.append(counted(tmp_path)))
    trainer = trainer_of(private_trainer(settings, tmp_path, link))
    trainer.train()
    planned = link.budgets[0].left
    assert planned >= 6
    assert [trained.steps for trained in link.trained] == [4, planned - 4]
    assert kept == [4, planned]  # durable before each snapshot can leave
    last = link.budgets[-1]
    assert (last.steps, last.left) == (planned, 0)
    rate = 4 / len(private_examples(settings))
    assert last.spent == epsilon_of({(last.noise, rate): planned}, 1e-3) <= 8.0
    assert epsilon_of({(last.noise, rate): planned + 1}, 1e-3) > 8.0


def private_examples(settings: Any) -> list[Any]:
    from decaf_node.training.data import load_data
    from decaf_node.training.tasks.table import load_task

    return load_data(settings, load_task(settings).source).stream.examples


def test_a_restart_remembers_what_is_spent_and_takes_no_step_beyond(tmp_path: Path) -> None:
    settings = private_settings(tmp_path)
    private_trainer(settings, tmp_path).trainer.train()
    spent = counted(tmp_path)
    link = Listening(settings)
    assembled = private_trainer(settings, tmp_path, link)
    before = weights(assembled)
    assembled.trainer.train()
    assert link.budgets[0].left == 0
    assert link.budgets[0].steps == spent == counted(tmp_path)
    assert link.trained == []
    assert differ(before, weights(assembled)) == set()


def test_a_larger_budget_goes_on_from_what_is_spent(tmp_path: Path) -> None:
    settings = private_settings(tmp_path)
    private_trainer(settings, tmp_path).trainer.train()
    spent = counted(tmp_path)
    more = private_settings(tmp_path, settings.model.path, privacy={**BUDGET, "epsilon": 12.0})
    link = Listening(more)
    private_trainer(more, tmp_path, link).trainer.train()
    assert link.budgets[0].spent <= 8.0
    assert link.budgets[0].left > 0
    assert 8.0 < link.budgets[-1].spent <= 12.0
    assert counted(tmp_path) == spent + link.budgets[0].left


def test_nothing_is_published_that_cannot_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = private_settings(tmp_path)
    link = Listening(settings)
    assembled = private_trainer(settings, tmp_path, link)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("decaf_node.training.private.account._write", full)
    with pytest.raises(Exception, match="privacy budget cannot be kept"):
        assembled.trainer.train()
    assert link.trained == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_b_alone_is_trained_under_dlora_fa(tmp_path: Path) -> None:
    settings = private_settings(
        tmp_path, round={"steps": 4, "limit": 9, "evaluate_every": 100, "algorithm": "dlora-fa"}
    )
    assembled = private_trainer(settings, tmp_path)
    before = weights(assembled)
    assembled.trainer.train()
    changed = differ(before, weights(assembled))
    assert changed == {name for name in before if "lora_A" not in name}


# --- a step ----------------------------------------------------------------------------------------------------------


def one_step(assembled: Assembled, count: int) -> dict[str, Tensor]:
    """Take the gradients of the first ``count`` examples; return them by parameter, one row an example."""
    trainer = trainer_of(assembled)
    trainer.create_optimizer()
    examples = assembled.data.stream.examples[:count]
    batch = collate(examples, 0, causal=trainer._causal, keyed=False) if count else empty()
    trainer.training_step(assembled.model, dict(batch))
    return {
        name: parameter.grad_sample for name, parameter in assembled.model.named_parameters() if parameter.requires_grad
    }


def empty() -> dict[str, Tensor]:
    return {"input_ids": torch.zeros((0, 1), dtype=torch.long), "labels": torch.zeros((0,), dtype=torch.long)}


def by_autograd(assembled: Assembled, number: int, causal: bool) -> dict[str, Tensor]:
    """The gradient of one example, all by itself."""
    batch = collate([assembled.data.stream.examples[number]], 0, causal=causal, keyed=False)
    named = {name: p for name, p in assembled.model.named_parameters() if p.requires_grad}
    trainer_of(assembled)._hooks.disable_hooks()
    gradients = torch.autograd.grad(example_losses(assembled.model, batch, causal).sum(), list(named.values()))
    trainer_of(assembled)._hooks.enable_hooks()
    return dict(zip(named, gradients, strict=True))


@pytest.mark.parametrize("task", ["classifier", "answers", "texts"])
def test_each_gradient_is_that_of_its_example_alone(tmp_path: Path, task: str) -> None:
    """Among examples of very different length: nobody's gradient may depend on who else was drawn."""
    if task == "classifier":
        settings = private_settings(tmp_path)
    else:
        rows = [{"prompt": row["text"], "text": f"{row['label']} the cat"} for row in topic_rows(10)]
        rows += [{"prompt": "a", "text": "sport"}, {"prompt": "the", "text": "the cat sat on a mat " * 3}]
        data = {"prompt_column": "prompt"} if task == "answers" else {}
        settings = causal_settings(
            make_llama(tmp_path / "llama"),
            write_rows(tmp_path / "rows.jsonl", rows[::-1]),
            data={**data, "max_length": 24, "evaluation_fraction": 0.0},
            privacy=BUDGET,
            lora={"target_modules": "all-linear"},
        )
    assembled = private_trainer(settings, tmp_path)
    with torch.no_grad():  # with B = 0 the gradient of A is zero, and says nothing
        for layer in find_adapter(assembled.model).layers.values():
            layer.b.normal_(std=0.1)
    found = one_step(assembled, 6)
    for number in range(6):
        for name, gradient in by_autograd(assembled, number, task != "classifier").items():
            torch.testing.assert_close(found[name][number], gradient, rtol=1e-4, atol=1e-6)


def test_a_step_is_the_clipped_sum_and_the_noise_over_the_expected_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = private_settings(tmp_path, privacy={**BUDGET, "max_grad_norm": 0.05})
    assembled = private_trainer(settings, tmp_path)
    optimizer: Any = trainer_of(assembled).create_optimizer()
    monkeypatch.setattr(optimizer, "_noise", Ones())
    found = one_step(assembled, 3)
    norms = torch.sqrt(sum((g.flatten(1) ** 2).sum(1) for g in found.values()))  # type: ignore[arg-type]
    assert (norms > 0.05).any()
    factors = (0.05 / (norms + 1e-6)).clamp(max=1)
    wanted = {
        name: (torch.einsum("i,i...->...", factors, gradient) + optimizer.noise_multiplier * 0.05) / 4
        for name, gradient in found.items()
    }
    optimizer.step()
    for name, parameter in assembled.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, wanted[name])


class Ones:
    """Noise of one deviation everywhere."""

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> Any:
        return np.ones(shape, dtype=dtype)


def test_a_batch_without_examples_is_a_step_of_noise(tmp_path: Path) -> None:
    assembled = private_trainer(private_settings(tmp_path), tmp_path)
    before = weights(assembled)
    found = one_step(assembled, 0)
    assert {gradient.shape[0] for gradient in found.values()} == {0}
    trainer_of(assembled).create_optimizer().step()
    assert differ(before, weights(assembled)) == before.keys()


def test_noise_is_not_drawn_from_torchs_seed(tmp_path: Path) -> None:
    settings = private_settings(tmp_path)
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assembled = private_trainer(settings, tmp_path / name)
        optimizer: Any = trainer_of(assembled).create_optimizer()
        torch.manual_seed(0)
        np.random.seed(0)
        one_step(assembled, 0)
        optimizer.step()
        drawn.append(torch.cat([p.grad.flatten() for p in assembled.model.parameters() if p.grad is not None]))
    assert not torch.equal(*drawn)
    deviation = optimizer.noise_multiplier * BUDGET["max_grad_norm"] / 4
    assert drawn[0].std().item() == pytest.approx(deviation, rel=0.2)
    assert drawn[0].mean().item() == pytest.approx(0.0, abs=0.3 * deviation)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_too_few_examples_and_too_large_a_delta_are_refused(tmp_path: Path) -> None:
    few = private_settings(tmp_path, training={"arguments": {"per_device_train_batch_size": 1000}})
    with pytest.raises(BadData) as caught:
        private_trainer(few, tmp_path)
    assert caught.value.reason == "privacy.too-few-examples"
    loose = private_settings(tmp_path, few.model.path, privacy={**BUDGET, "delta": 0.1})
    with pytest.raises(BadSettings) as refused:
        private_trainer(loose, tmp_path)
    assert refused.value.reason == "privacy.delta-too-large"
    assert not account_of(tmp_path).exists()


def test_batch_normalisation_is_refused_even_where_it_is_frozen() -> None:
    check_model(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(BadSettings) as caught:
        check_model(model)
    assert caught.value.reason == "privacy.batch-norm"


def test_a_layer_that_sees_something_else_than_examples_is_refused() -> None:
    weight: Any = nn.Parameter(torch.zeros(2, 3))
    weight.grad_sample = torch.zeros(17, 2, 3)  # tokens, as an expert sees them
    with pytest.raises(BadSettings, match=r"experts\.0") as caught:
        check_gradients([weight], ["experts.0"], 4)
    assert caught.value.reason == "privacy.not-by-example"
    weight.grad_sample = None
    check_gradients([weight], ["unused"], 4)
    assert weight.grad_sample.shape == (4, 2, 3)
