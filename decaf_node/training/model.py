"""The base model and its tokenizer, from a local folder only."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CLIPModel,
    CLIPProcessor,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from decaf_node.errors import BadData, BadSettings, NotAllowed
from decaf_node.settings import ModelSection
from decaf_node.training.base import weight_files
from decaf_node.training.pooling import MeanPooledClassifier
from decaf_node.training.quantized import quantized

HEADED = {
    "sequence-classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
WITH_IMAGES = {"image-classification": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "clip": ("clip",)}
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)


def load_base(model: ModelSection, seed: int) -> Any:
    """Return the base model of the task, its new parts (a classification head) drawn from ``seed``.

    It is on the CPU; where it is quantized, on its device. Raises BadData if the folder holds no usable model,
    NotAllowed if it needs what is turned off, BadSettings if the task lacks something.
    """
    check_folder(model)
    check_labels(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return _load(model)
        except UNREADABLE as error:
            raise BadData(
                "model.unreadable", f"The model in {model.path} cannot be loaded: {first_line(error)}"
            ) from error


def check_labels(model: ModelSection) -> None:
    """Raise BadSettings if a classifier has nothing to choose from."""
    if model.classifies and len(model.labels) < 2:
        raise BadSettings("model.labels-missing", f"For {model.task}, model.labels must name all the labels.")


def load_tokenizer(model: ModelSection) -> Any:
    """Return the tokenizer in the model's folder, with a padding token and right padding. Raises BadData."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path, **_sources(model))
    except UNREADABLE as error:
        raise BadData(
            "model.no-tokenizer", f"The tokenizer in {model.path} cannot be loaded: {first_line(error)}"
        ) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise BadData("model.no-padding", f"The tokenizer in {model.path} has neither a padding nor an end token.")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_image_processor(model: ModelSection) -> Any:
    """Return the image processor in the model's folder, one that works with Pillow alone. Raises BadData."""
    if not any((model.path / name).is_file() for name in PROCESSORS):
        raise BadData(
            "model.no-image-processor",
            f"{model.path} has no preprocessor_config.json, which says how images are made fit for the model; put it "
            "there, from where the model comes from.",
        )
    try:
        # the same at every node, whether torchvision is there or not
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            model.path, local_files_only=True, trust_remote_code=model.trust_remote_code, backend="pil"
        )
    except UNREADABLE as error:
        raise BadData(
            "model.no-image-processor",
            f"The image processor in {model.path} cannot be loaded: {first_line(error)}",
        ) from error


def load_reader(model: ModelSection) -> Any:
    """Return what the task's inputs go through: a tokenizer, an image processor, or a CLIPProcessor of both."""
    if model.task == "image-classification":
        return load_image_processor(model)
    if model.task == "clip":
        return CLIPProcessor(load_image_processor(model), load_tokenizer(model))  # type: ignore[no-untyped-call]
    return load_tokenizer(model)


def check_folder(model: ModelSection) -> None:
    """Raise BadData or NotAllowed unless the folder holds a model that may be loaded."""
    if not model.path.is_dir():
        raise BadData("model.missing", f"There is no model folder at {model.path}; set model.path to one.")
    weights = weight_files(model)
    if model.gguf_file:
        if not weights[0].is_file():
            raise BadData("model.missing", f"There is no GGUF file {model.gguf_file} in {model.path}.")
        return
    if not (model.path / "config.json").is_file() or not weights:
        raise BadData(
            "model.not-a-model",
            f"{model.path} is not a model folder: it needs config.json and *.safetensors (or set model.gguf_file).",
        )
    if weights[0].suffix != ".safetensors" and not model.allow_pickle:
        raise NotAllowed(
            "model.pickled",
            f"The model in {model.path} has pickled weights only, which can run any code; convert it to safetensors, "
            "or set model.allow_pickle.",
        )
    config = _config(model)
    _check_code(model, config)
    _check_kind(model, config)


def heads_of(classifier: Any) -> list[str]:
    """Return the names of the parts of a classifier of images beside its backbone, which is by far the largest."""
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in classifier.named_children()}
    backbone = max(sizes, key=lambda name: sizes[name])
    return [name for name, size in sizes.items() if size and name != backbone]


def choose_device(device: str, processes: int = 1) -> None:
    """Let this process see just the device that is asked for. To be called before anything touches CUDA.

    One GPU at most: transformers' Trainer would otherwise split each batch over all of them (DataParallel), which
    copies the adapter each step. Of several processes each takes the GPU of its number. Raises BadSettings.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
        raise BadSettings("model.unknown-device", f"model.device is {device!r}; it is auto, cpu, cuda or cuda:N.")
    if processes > 1:
        _check_devices(device, processes)
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    choices = visible.split(",") if visible is not None else None
    number = int(index or 0)
    if kind == "cpu":
        chosen = ""
    elif choices is None:
        chosen = str(number)
    else:
        chosen = choices[number] if number < len(choices) else ""
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen
    if kind == "cuda" and not torch.cuda.is_available():
        raise BadSettings(
            "model.no-cuda",
            f"model.device is {device!r}, but torch {torch.__version__} finds no such CUDA device here; "
            "install a CUDA build of torch, or set model.device to cpu.",
        )


def _check_devices(device: str, processes: int) -> None:
    """Raise BadSettings unless there is a GPU for each process, or they are all to run on the CPU."""
    found = torch.cuda.device_count()
    if ":" in device:
        raise BadSettings(
            "model.one-device",
            f"model.device is {device!r}, which is one device, and training.processes is {processes}; set model.device "
            "to cuda, and choose devices by CUDA_VISIBLE_DEVICES.",
        )
    if (device == "cuda" or (device == "auto" and found)) and found < processes:
        raise BadSettings(
            "training.too-few-devices",
            f"training.processes is {processes}, and torch {torch.__version__} finds {found} CUDA "
            f"{'device' if found == 1 else 'devices'} here; set it to that number, or model.device to cpu.",
        )


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, as the end of a sentence."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].strip()[:300].rstrip(".:") + "."


def _config(model: ModelSection) -> dict[str, Any]:
    place = model.path / "config.json"
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadData("model.not-a-model", f"{place} cannot be read: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise BadData("model.not-a-model", f"{place} cannot be read: it is no JSON object.")
    return config


def _check_kind(model: ModelSection, config: dict[str, Any]) -> None:
    """Raise BadData if the model, one without code of its own, is not of the kind that a task with images needs."""
    kind, kinds = config.get("model_type"), WITH_IMAGES.get(model.task)
    if kinds is not None and kind not in kinds and "auto_map" not in config:
        needed = "a CLIP model" if model.task == "clip" else "a model that transformers has for it, as vit or dinov2"
        raise BadData(
            "model.other-task",
            f"The model in {model.path} is of the type {kind}, and {model.task} needs {needed}; set model.path to one, "
            "or another model.task.",
        )


def _check_code(model: ModelSection, config: dict[str, Any]) -> None:
    remote = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING
    if remote and not model.trust_remote_code:
        raise NotAllowed(
            "model.remote-code",
            f"The model in {model.path} runs Python code that lies in its folder; read it, and set "
            "model.trust_remote_code if you trust it.",
        )


def _sources(model: ModelSection) -> dict[str, Any]:
    named = {"gguf_file": model.gguf_file} if model.gguf_file else {}
    return {"local_files_only": True, "trust_remote_code": model.trust_remote_code, **named}


def _load(model: ModelSection) -> Any:
    sources = {**_sources(model), "dtype": getattr(torch, model.dtype)}
    if model.gguf_file:
        sources |= _dequantized()
    elif not model.allow_pickle:
        sources["use_safetensors"] = True
    if model.task == "causal-lm":
        return _whole(model, AutoModelForCausalLM, {**sources, **quantized(model)})
    if model.task == "clip":
        return _whole(model, CLIPModel, sources)
    if model.pooling == "mean":
        return MeanPooledClassifier(_whole(model, AutoModel, sources), len(model.labels))
    head = {
        "num_labels": len(model.labels),
        "id2label": dict(enumerate(model.labels)),
        "label2id": {label: index for index, label in enumerate(model.labels)},
        "ignore_mismatched_sizes": True,  # a head for other labels is replaced
    }
    return _whole(model, HEADED[model.task], {**sources, **head})


def _whole(model: ModelSection, kind: Any, sources: dict[str, Any]) -> Any:
    """Load the model and see to it that only a classification head, or an unused pooler, was not in the files."""
    loaded, report = kind.from_pretrained(model.path, output_loading_info=True, **sources)
    inner = f"{loaded.base_model_prefix}." if kind is AutoModelForSequenceClassification else ""
    heads = heads_of(loaded) if kind is AutoModelForImageClassification else []
    missing = sorted(
        key
        for key in report["missing_keys"]
        if key.startswith(inner) and "pooler" not in key and key.partition(".")[0] not in heads
    )
    if missing:
        suited = " (for an encoder of texts: sequence-classification)" if model.task == "causal-lm" else ""
        raise BadData(
            "model.weights-missing",
            f"The model in {model.path} is not made for {model.task}: its files lack {len(missing)} of the weights, "
            f"such as {missing[0]}; take another model, or another model.task{suited}.",
        )
    return loaded


def _dequantized() -> dict[str, Any]:
    try:
        from transformers import GgufConfig
    except ImportError:  # before transformers had the class it always dequantized
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
