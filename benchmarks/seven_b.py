"""``seven_b.py LAYERS FOLDER [--idle]``: a script whose adapter has the shapes of a 7B-class model's, for ``overlap``.

All layers of one shape share their frozen weights, so that it fits; a step still multiplies with each of them.
``--idle``: a neighbour, whose steps are pauses. When each step began and ended (seconds, monotonic) is written to
``FOLDER/steps``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.mix import SEVEN_B
from decaf_node.training.callback import DecafCallback

RANK = 16
PAUSE_SECONDS = 0.5
TOKENS = 4  # of a step


class SevenB(nn.Module):
    """Linear layers side by side, that learn to make nothing of noise."""

    def __init__(self, layers: int, idle: bool) -> None:
        super().__init__()
        shapes = {name: shape for name, shape in SEVEN_B.items() if int(name.split("_")[1]) < layers}
        weights = {
            shape: nn.Parameter(torch.full(shape, 1e-3, dtype=torch.bfloat16), requires_grad=False)
            for shape in {*shapes.values()}
        }
        self.layers = nn.ModuleDict()
        for name, (rows, columns) in shapes.items():
            layer = nn.Linear(columns, rows, bias=False, device="meta")
            layer.weight = weights[rows, columns]
            self.layers[name] = layer
        self._idle = idle

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        if self._idle:
            time.sleep(PAUSE_SECONDS)
            return {"loss": 0.0 * next(one for one in self.parameters() if one.requires_grad).sum()}
        noise = noise.to(torch.bfloat16)
        layers: Any = self.layers.values()
        losses = [layer(noise[:, : layer.in_features]).float().square().mean() for layer in layers]
        return {"loss": torch.stack(losses).sum()}


class Clock(TrainerCallback):
    """Writes down every step."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._began = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._file.write(f"{self._began} {time.monotonic()}\n")


class Noise(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"noise": torch.randn(max(columns for _, columns in SEVEN_B.values()))}


def main(layers: int, folder: Path, idle: bool) -> None:
    torch.manual_seed(0)
    names = [name for name in SEVEN_B if int(name.split("_")[1]) < layers]
    base: Any = SevenB(layers, idle)
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names))
    arguments = TrainingArguments(
        str(folder / "out"),
        max_steps=1_000_000,
        per_device_train_batch_size=TOKENS,
        learning_rate=1e-4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Noise())
    trainer.add_callback(Clock(folder / "steps"))
    trainer.add_callback(DecafCallback())
    trainer.train()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), "--idle" in sys.argv)
