"""``own_script.py MODEL FOLDER``: a training script as people have it, with the one line of a node (and ``Tells``)."""

from __future__ import annotations

import sys
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from decaf_node.training.callback import DecafCallback


class Tells(TrainerCallback):
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if any(parameter.any() for name, parameter in kwargs["model"].named_parameters() if "lora_B" in name):
            print("goes on from a saved adapter", flush=True)


def main(model_folder: str, output_folder: str) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=2)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS"))
    rows: Any = [{"input_ids": [1, 5, number, 2], "labels": number % 2} for number in range(6, 22)]
    arguments = TrainingArguments(
        output_folder,
        max_steps=1_000_000,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.add_callback(DecafCallback())
    trainer.add_callback(Tells())
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
