"""What ``[privacy] epsilon`` demands of the other settings, seen before anything heavy is loaded.

The promise is about one example: whether it was in the data hardly changes what leaves the node. It holds only if
each step looks at examples drawn by chance (Poisson sampling) and one at a time. What mixes the examples of a batch,
scales gradients or draws batches in another way is refused here by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from decaf_node.errors import BadSettings
from decaf_node.settings import PrivacySection, Settings

ARGUMENTS: dict[str, str] = {
    "max_grad_norm": "each example's gradient is clipped; see privacy.max_grad_norm",
    "gradient_accumulation_steps": "a step takes one drawn batch; raise per_device_train_batch_size instead",
    "gradient_checkpointing": "it runs layers twice, and gradients of single examples would count twice",
    "fp16": "it scales the loss, and so the gradients that are clipped",
    "bf16": "gradients of single examples need float32; model.dtype may be bfloat16",
    "torch_compile": "a compiled model gives no gradients of single examples",
    "label_smoothing_factor": "the loss is taken example by example, without it",
    "use_liger_kernel": "its fused layers give no gradients of single examples",
    "deepspeed": "it takes optimizer steps of its own",
    "fsdp": "it splits the parameters",
    "auto_find_batch_size": "the batch size is part of the budget's plan",
    "group_by_length": "batches are drawn by chance",
    "train_sampling_strategy": "batches are drawn by chance",
}
NEUTRAL = (False, None, 0, "", "no", "random")
OWN_STEPS = ("lomo", "layerwise")


def wants_privacy(privacy: PrivacySection) -> bool:
    """Are the local steps to be differentially private?"""
    return privacy.epsilon is not None


def check(settings: Settings) -> None:
    """Raise the first of ``objections``."""
    for objection in objections(settings):
        raise objection


def objections(settings: Settings) -> Iterator[BadSettings]:
    """Yield what in the settings, or in the installation, keeps the promise from holding; nothing without epsilon."""
    if not wants_privacy(settings.privacy):
        return
    if find_spec("opacus") is None:
        yield BadSettings(
            "privacy.no-opacus",
            'privacy.epsilon needs Opacus, which is not installed here: run pip install "decaf-node[privacy]", '
            "or take epsilon out.",
        )
    if settings.training.trainer == "external":
        yield external_trainer()
    if settings.training.processes > 1:
        yield BadSettings(
            "privacy.one-process",
            "privacy.epsilon is for one process: it draws all batches; set training.processes to 1.",
        )
    if settings.security.robust == "score":
        yield BadSettings(
            "privacy.score",
            'security.robust = "score" weighs neighbours by losses on data of this node, and they hear the weights, '
            'which the budget of privacy.epsilon does not cover; use "clip".',
        )
    if settings.training.balance_labels:
        yield BadSettings(
            "privacy.balance",
            "training.balance_labels counts the labels of this node's examples, which the budget of privacy.epsilon "
            "does not cover; take one of them out.",
        )
    if planned_steps(settings) is None:
        yield BadSettings(
            "privacy.no-plan",
            "privacy.epsilon is a budget for a number of steps: set privacy.steps, or round.limit and round.steps.",
        )
    yield from _of_arguments(settings)


def external_trainer() -> BadSettings:
    """Return the refusal for a training script of one's own."""
    return BadSettings(
        "privacy.external-trainer",
        "privacy.epsilon is for the built-in trainer: a script of yours decides itself how it trains; "
        "use Opacus in the script, and take epsilon out.",
    )


def planned_steps(settings: Settings) -> int | None:
    """Return how many local steps the budget is to last."""
    if settings.privacy.steps is not None:
        return settings.privacy.steps
    return settings.round.limit * settings.round.steps or None


def _of_arguments(settings: Settings) -> Iterator[BadSettings]:
    given = settings.training.arguments
    for key, why in ARGUMENTS.items():
        neutral = (*NEUTRAL, 1) if key == "gradient_accumulation_steps" else NEUTRAL
        if key in given and given[key] not in neutral:
            yield _refused(f"{key} = {given[key]!r}", why)
    optimizer = str(given.get("optim", ""))
    if any(kind in optimizer for kind in OWN_STEPS):
        yield _refused(f"optim = {optimizer!r}", "it takes its steps while gradients are still computed")


def _refused(setting: str, why: str) -> BadSettings:
    return BadSettings(
        "privacy.argument", f"[training.arguments] {setting} does not go with privacy.epsilon: {why}; take it out."
    )
