"""The trainer's own state in one safetensors file: optimizer, schedule, position in the data, random generators.

Tensors are named ``optimizer/<parameter>/<key>`` and ``rng/<generator>``; everything else is one JSON string in the
file's metadata. Nothing is pickled.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from decaf_node.errors import BadData
from decaf_node.training.data import Position

STATE = "state"


@dataclass(frozen=True)
class Progressed:
    """step: optimizer steps since the very first; position: in the training data; labels: as they are weighed."""

    step: int
    position: Position
    labels: tuple[float, ...] = ()


def save_trainer_state(
    path: Path, named: Mapping[str, nn.Parameter], optimizer: Any, scheduler: Any, progressed: Progressed
) -> None:
    """Write the state that makes a restart go on as if nothing had happened. Raises OSError."""
    tensors, scalars = _optimizer_state(named, optimizer)
    tensors |= _generator_tensors()
    document = {
        "optimizer": scalars,
        "scheduler": _plain(scheduler.state_dict()),
        "progressed": asdict(progressed),
        "python": random.getstate(),
        "numpy": _numpy_state(),
    }
    save_file(tensors, path, metadata={STATE: json.dumps(document)})


def load_trainer_state(
    path: Path, named: Mapping[str, nn.Parameter], optimizer: Any, scheduler: Any
) -> tuple[Progressed, dict[str, Any]]:
    """Load optimizer and schedule; return how far training was, and the generators for ``restore_generators``.

    The generators are given back because whoever starts to train draws from them first. Moments of parameters that
    are gone or have another shape (a changed rank) are left out. Raises BadData if the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads(file.metadata()[STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        said = document["progressed"]
        labels = tuple(map(float, said.get("labels", ())))  # an older version has none
        progressed = Progressed(int(said["step"]), Position(**said["position"]), labels)
        _load_optimizer(named, optimizer, tensors, document["optimizer"])
        _load_scheduler(scheduler, document["scheduler"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadData("training.state-damaged", f"The trainer state {path} is damaged: {error}.") from error
    generators = {name: tensor for name, tensor in tensors.items() if name.startswith("rng/")}
    return progressed, {"tensors": generators, "python": document["python"], "numpy": document["numpy"]}


def restore_generators(generators: Mapping[str, Any]) -> None:
    """Set torch's, Python's and numpy's random generators as they were saved."""
    tensors = generators["tensors"]
    torch.set_rng_state(tensors["rng/torch"])
    if torch.cuda.is_available() and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"])
    version, words, gauss = generators["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = generators["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def _optimizer_state(named: Mapping[str, nn.Parameter], optimizer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{key}"] = value.detach().contiguous()
            else:
                scalars.setdefault(name, {})[key] = value
    return tensors, scalars


def _load_optimizer(
    named: Mapping[str, nn.Parameter], optimizer: Any, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    groups = optimizer.state_dict()["param_groups"]
    numbers = {
        id(parameter): number
        for group, plain in zip(optimizer.param_groups, groups, strict=True)
        for parameter, number in zip(group["params"], plain["params"], strict=True)
    }
    state = {}
    for name, parameter in named.items():
        prefix = f"optimizer/{name}/"
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        fits = all(value.dim() == 0 or value.shape == parameter.shape for value in found.values())
        if id(parameter) in numbers and fits and (found or name in scalars):
            state[numbers[id(parameter)]] = {**found, **scalars.get(name, {})}
    optimizer.load_state_dict({"state": state, "param_groups": groups})  # it knows which device each belongs to


def _load_scheduler(scheduler: Any, saved: Mapping[str, Any]) -> None:
    """Go on in the schedule where it was, at today's learning rate: the settings may have changed."""
    current = scheduler.state_dict()
    kept = {key: value for key, value in current.items() if key == "base_lrs" or key not in saved}
    scheduler.load_state_dict({**saved, **kept})
    rates = zip(saved["_last_lr"], saved["base_lrs"], current["base_lrs"], strict=True)
    for group, (rate, base_then, base_now) in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * base_now / base_then if base_then else base_now


def _generator_tensors() -> dict[str, Tensor]:
    tensors = {"rng/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    return tensors


def _numpy_state() -> list[Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return [name, np.asarray(keys).tolist(), position, has_gauss, cached]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a schedule's state is plain numbers; functions are made anew from the settings."""
    return {key: value for key, value in state.items() if isinstance(value, (int, float, list)) and key != "lr_lambdas"}
