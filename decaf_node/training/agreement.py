"""Whether a device would train what a mesh trains, as far as it can be known without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings

UNKNOWN = "the layers of the adapter are compared when the trainer has loaded the model"


def compare(parts: Mapping[str, Any], settings: Settings, base: Callable[[], str | None]) -> str:
    """Compare what the mesh trains (``schema_parts``) with the settings; return what could not be compared.

    base: works out the fingerprint of this device's base model, which takes a while; None where there is none.
    Raises BadSettings ``join.other-model`` or ``join.other-schema``, with the key to change.
    """
    ours = {
        "task": ("model.task", settings.model.task),
        "pooling": ("model.pooling", settings.model.pooling),
        "labels": ("model.labels", list(settings.model.labels)),
        "algorithm": ("round.algorithm", settings.round.algorithm),
        "initial_a_seed": ("mixing.initial_a_seed", settings.mixing.initial_a_seed),
    }
    for part, (key, value) in ours.items():
        if part in parts and parts[part] != value:
            raise BadSettings(
                "join.other-schema",
                f"The mesh trains with {key} = {_shown(parts[part])}, and this device has {_shown(value)}; set the "
                "same.",
            )
    if "base" not in parts:
        return "the base model and the layers of the adapter are compared when the trainer has loaded the model"
    found = base()
    if found is None:
        return f"there is no base model at {settings.model.path} to compare yet, and {UNKNOWN}"
    if found != parts["base"]:
        raise BadSettings(
            "join.other-model",
            f"The mesh trains another base model ({_shown(parts['base'])[1:9]}...) than the one in "
            f"{settings.model.path} ({found[:8]}...); set model.path to a copy of that one.",
        )
    return UNKNOWN


def _shown(value: Any) -> str:
    """A mesh's own words, short and fit to be printed."""
    return ascii(value)[:80]
