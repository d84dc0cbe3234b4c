"""The adapter as others take it: a PEFT folder, with what decaf-node adds to it in ``decaf.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

from decaf_node.errors import BadData
from decaf_node.settings import ModelSection
from decaf_node.training.live import active_adapter
from decaf_node.training.lora import keep_trained_modules_exact
from decaf_node.training.model import UNREADABLE, first_line, load_base, load_reader

NOTES = "decaf.json"


@dataclass(frozen=True)
class Notes:
    """What the PEFT files do not say. base: fingerprint of the base model."""

    task: str
    pooling: str
    labels: list[str]
    gguf_file: str
    dtype: str
    base: str


def write_export(folder: Path, model: Any, section: ModelSection, base: str) -> None:
    """Write the adapter of a PEFT model into ``folder``. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    # no card: PEFT's says "More Information Needed" of all it could say, and takes longer than the rest of a save
    model.create_or_update_model_card = lambda folder: None
    try:
        # embeddings are trained only where modules_to_save names them, and then they are saved as such
        model.save_pretrained(folder, selected_adapters=[active_adapter(model)], save_embedding_layers=False)
    finally:
        del model.create_or_update_model_card  # the class has its own
    notes = Notes(section.task, section.pooling, list(section.labels), section.gguf_file, section.dtype, base)
    (folder / NOTES).write_text(json.dumps(asdict(notes), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_exported(folder: Path, base_model_path: Path) -> tuple[Any, Any]:
    """Return (model, tokenizer) of an exported adapter on its base model, on the CPU, ready to be used.

    For image-classification the second is the image processor, for clip a CLIPProcessor.

    The model is a PEFT model in evaluation mode. Except for mean pooling it is the same as
    ``PeftModel.from_pretrained(AutoModelFor…, folder)``, for clip with ``CLIPModel``; a mean-pooled classifier is known
    to this function alone: ``model(input_ids=…, attention_mask=…).logits`` has one column for each label in
    ``model.config.id2label``.

    Raises BadData if the folder is not an export, or the base model does not load.
    """
    notes = read_notes(folder)
    section = ModelSection.model_validate(
        {
            "path": base_model_path,
            "task": notes.task,
            "pooling": notes.pooling,
            "labels": notes.labels,
            "gguf_file": notes.gguf_file,
            "dtype": notes.dtype,
        }
    )
    model = attach_exported(load_base(section, seed=0), folder)
    model.config.id2label = dict(enumerate(notes.labels))
    return model, load_reader(section)


def read_notes(folder: Path) -> Notes:
    """Return what ``decaf.json`` says. Raises BadData ``export.not-an-export``."""
    try:
        return Notes(**json.loads((folder / NOTES).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadData("export.not-an-export", f"{folder} is not an adapter folder that decaf-node exported.") from error


def attach_exported(base: Any, folder: Path) -> Any:
    """Return the PEFT model of ``base`` with an exported adapter, in evaluation mode. Raises BadData."""
    try:
        model = PeftModel.from_pretrained(base, folder, local_files_only=True).eval()
        keep_trained_modules_exact(model)
        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except UNREADABLE as error:
        raise BadData(
            "export.not-an-export", f"The adapter in {folder} cannot be loaded: {first_line(error)}"
        ) from error
    return model
