"""``python -m decaf_node.training.checkup``: can this machine train what the settings say? For ``decaf-node doctor``.

Reads ``{"settings": ..., "remembered": PATH}`` from stdin and writes a JSON line for each thing that it has looked at:
``layer``, ``subject``, ``mark``, ``message``, ``reason``, ``exit_code``; and one ``{"base": FINGERPRINT}``. It loads no
weights: what the trainer has on the GPU is left alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from decaf_node.errors import BadData, DecafError, TryAgain
from decaf_node.settings import Settings
from decaf_node.training.base import base_fingerprint, weight_files
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.offline import go_offline

GPU_FILES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu")  # of a PC's driver, and of a Jetson's
SIDE = 256
FULL = ("out of memory", "ALLOC_FAILED", "busy")  # what CUDA and cuBLAS say where others hold the GPU
WARNINGS = {"machine.gpu-full"}


def main() -> int:
    """Look at everything, in order; return 0."""
    go_offline()
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="decaf-node-checkup-") as scratch:
        look_at(Settings.model_validate(asked["settings"]), Path(asked["remembered"]), Path(scratch))
    return 0


def look_at(settings: Settings, remembered: Path, scratch: Path) -> None:
    """Tell line by line how machine, model and data are. remembered: digests of weight files, from the trainer."""
    built_in = settings.training.trainer == "built-in"
    if not built_in:
        _found("machine", "torch", "unseen", "not looked at: the trainer is external, and may have another")
    elif not _look("machine", "torch", _torch):
        return
    else:
        if _look("machine", "device", lambda: _device(settings)):
            _gpu_unused(settings)
        _look("model", "arguments", lambda: _arguments(settings, scratch))

    def model() -> str:
        words = _model(settings) if built_in else _named(settings)
        _tell(base=_fingerprint(settings, _copied(remembered, scratch)))
        return words

    if _look("model", str(settings.model.path), model):
        if not built_in:
            _found("data", "all of it", "unseen", "not looked at: the trainer is external, and reads what it likes")
        else:
            _look("data", ", ".join(map(str, settings.data.train)), lambda: _data(settings))


def _look(layer: str, subject: str, at: Callable[[], str]) -> bool:
    """Tell what is there, or what is wrong there; say whether it is well."""
    try:
        words = at()
    except DecafError as error:
        if error.reason in WARNINGS:
            _found(layer, subject, "warning", error.message, error.reason)
        else:
            _found(layer, subject, "failure", error.message, error.reason, error.exit_code)
        return False
    _found(layer, subject, "well", words)
    return True


def _torch() -> str:
    demand_libraries()
    try:
        import torch
    except (ImportError, OSError) as error:
        raise TryAgain("machine.no-torch", f"torch cannot be loaded here: {error}.") from None
    return f"torch {torch.__version__} for Python {sys.version.split()[0]}"


def _device(settings: Settings) -> str:
    """Return the name of the device that would be trained on, after a small sum on it."""
    import torch

    from decaf_node.training.model import choose_device

    choose_device(settings.model.device, settings.training.processes)
    if not torch.cuda.is_available():
        return f"the CPU, {torch.get_num_threads()} threads"
    try:
        ones = torch.ones(SIDE, SIDE, device="cuda")
        right = float((ones @ ones).sum()) == SIDE**3
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
    except RuntimeError as error:  # torch's own are all of this kind
        raise gpu_trouble(error) from None
    if not right:
        raise TryAgain("machine.gpu-fails", f"The GPU {name} adds up wrongly.")
    return f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"


def gpu_trouble(error: RuntimeError) -> TryAgain:
    """Tell a GPU that others have filled, as this node's own trainer may, from one that does not work."""
    from decaf_node.training.model import first_line

    if any(word in str(error) for word in FULL):
        return TryAgain("machine.gpu-full", f"The GPU has no room for a small sum now: {first_line(error)}")
    return TryAgain("machine.gpu-fails", f"The GPU does not work: {first_line(error)}")


def _gpu_unused(settings: Settings) -> None:
    """Warn of a GPU that torch cannot use."""
    import torch

    there = [place for place in GPU_FILES if Path(place).exists()]
    if settings.model.device == "auto" and there and not torch.cuda.is_available():
        words = (
            f"There is a GPU ({there[0]}), and torch {torch.__version__} cannot use it: this node trains on the CPU."
        )
        _found("machine", "GPU", "warning", words, "machine.gpu-unused")


def _arguments(settings: Settings, scratch: Path) -> str:
    from decaf_node.training.arguments import training_arguments
    from decaf_node.training.lora import check_lora
    from decaf_node.training.offline import quiet
    from decaf_node.training.private.demands import check as check_private
    from decaf_node.training.quantized import check_quantization
    from decaf_node.training.tasks.fitting import check as check_fits

    quiet()
    check_fits(settings)
    check_quantization(settings.model)
    check_private(settings)
    check_lora(settings.lora)
    training_arguments(settings, scratch)
    return "[lora] and [training.arguments] are as PEFT and transformers take them"


def _named(settings: Settings) -> str:
    """Return what lies in the model's folder: an external trainer loads it in its own way."""
    files = [file for file in weight_files(settings.model) if file.is_file()]
    if not files or not (settings.model.gguf_file or (settings.model.path / "config.json").is_file()):
        raise BadData("model.missing", f"There is no model in {settings.model.path}, which model.path names.")
    return f"weights are there ({files[0].name}); the trainer is external, and loads them in its own way"


def _model(settings: Settings) -> str:
    """Return what model it is, after a look at whether its files are whole."""
    from safetensors import SafetensorError, safe_open

    from decaf_node.training.model import check_folder, first_line
    from decaf_node.training.tasks.table import load_task

    check_folder(settings.model)
    files = weight_files(settings.model)
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt") as opened:
                    opened.keys()
            except (SafetensorError, OSError) as error:
                raise BadData("model.damaged", f"{file} is not whole: {first_line(error)}") from None
    task = load_task(settings)
    size = sum(file.stat().st_size for file in files)
    return f"{len(files)} weight {'file' if len(files) == 1 else 'files'}, {size / 1e6:,.1f} MB, and {task.reads}"


def _fingerprint(settings: Settings, remembered: Path) -> str:
    try:
        return base_fingerprint(settings.model, remembered)
    except (OSError, ValueError) as error:
        raise BadData("model.damaged", f"The files of {settings.model.path} cannot be read: {error}.") from None


def _data(settings: Settings) -> str:
    """Return how many examples there are. It reads them as the trainer does."""
    from decaf_node.training.data import load_data
    from decaf_node.training.tasks.table import load_task

    data = load_data(settings, load_task(settings).source)
    return f"{len(data.stream.examples):,} examples to train on, {len(data.evaluation):,} held out"


def _copied(remembered: Path, scratch: Path) -> Path:
    """Return a copy of the digests that the trainer remembers: nothing of the node is changed."""
    copy = scratch / "digests.json"
    with contextlib.suppress(OSError):  # then the files are read
        shutil.copyfile(remembered, copy)
    return copy


def _found(layer: str, subject: str, mark: str, message: str, reason: str = "", exit_code: int = 0) -> None:
    _tell(layer=layer, subject=subject, mark=mark, message=message, reason=reason, exit_code=exit_code)


def _tell(**said: str | int) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    sys.exit(main())
