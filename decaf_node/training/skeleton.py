"""A model without its weights: the shapes alone, on torch's meta device, from the files that describe it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, CLIPModel

from decaf_node.errors import BadData
from decaf_node.settings import ModelSection, Settings
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import HEADED, UNREADABLE, check_folder, check_labels, first_line
from decaf_node.training.pooling import MeanPooledClassifier


def skeleton_of(settings: Settings) -> Any:
    """Return the PEFT model that the trainer would make, without a number in it. Raises as the trainer would."""
    check_folder(settings.model)
    check_labels(settings.model)
    with torch.device("meta"):
        try:
            base = _base(settings.model)
        except UNREADABLE as error:
            raise BadData(
                "model.unreadable", f"The model in {settings.model.path} cannot be laid out: {first_line(error)}"
            ) from error
        # nothing is drawn: there is nowhere to put it
        model = attach_lora(base, settings.model_copy(update={"lora": {**settings.lora, "init_lora_weights": False}}))
    find_adapter(model)
    return model


def _base(model: ModelSection) -> Any:
    file = {"gguf_file": model.gguf_file} if model.gguf_file else {}
    sources = {"local_files_only": True, "trust_remote_code": model.trust_remote_code}
    config = AutoConfig.from_pretrained(model.path, **file, **sources)
    if model.task == "causal-lm":
        return _laid_out(AutoModelForCausalLM, config, model)
    if model.task == "clip":
        return CLIPModel._from_config(config, dtype=getattr(torch, model.dtype))  # type: ignore[no-untyped-call]
    if model.pooling == "mean":
        return MeanPooledClassifier(_laid_out(AutoModel, config, model), len(model.labels))
    config.num_labels = len(model.labels)
    return _laid_out(HEADED[model.task], config, model)


def _laid_out(kind: Any, config: Any, model: ModelSection) -> Any:
    return kind.from_config(config, trust_remote_code=model.trust_remote_code, dtype=getattr(torch, model.dtype))
