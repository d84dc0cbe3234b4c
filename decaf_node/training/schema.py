"""All that must agree between two nodes that mix, in words and as a fingerprint."""

from __future__ import annotations

import hashlib
from typing import Any

from decaf_node.settings import Settings
from decaf_node.training.base import canonical
from decaf_node.training.live import LiveAdapter


def schema_parts(settings: Settings, live: LiveAdapter, base: str) -> dict[str, Any]:
    """Return, in words, all that must agree. Ranks and scales may differ where products are mixed."""
    parts: dict[str, Any] = {
        "base": base,
        "targets": {name: [layer.b.shape[0], layer.a.shape[1]] for name, layer in sorted(live.layers.items())},
        "tensors": {name: list(tensor.shape) for name, tensor in sorted(live.tensors.items())},
        "task": settings.model.task,
        "pooling": settings.model.pooling,
        "labels": list(settings.model.labels),
        "algorithm": settings.round.algorithm,
    }
    if settings.round.algorithm in ("dlora", "dlora-fa"):
        parts["ranks"] = {name: [layer.a.shape[0], layer.scale] for name, layer in sorted(live.layers.items())}
    if settings.round.algorithm == "dlora-fa":
        parts["initial_a_seed"] = settings.mixing.initial_a_seed
    return parts


def schema_of(parts: dict[str, Any]) -> str:
    """Return the fingerprint of ``parts``: hex sha256 of their canonical JSON."""
    return hashlib.sha256(canonical(parts)).hexdigest()
