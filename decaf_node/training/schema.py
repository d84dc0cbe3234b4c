"""Fingerprints: which base model this is, and all that must agree between two nodes that mix."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from decaf_node.settings import ModelSection, Settings
from decaf_node.snapshot import digest_of
from decaf_node.training.live import LiveAdapter
from decaf_node.training.model import weight_files

VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")


def base_fingerprint(model: ModelSection, remembered: Path) -> str:
    """Return the hex sha256 over the base model's weight files and its configuration.

    Hashing gigabytes takes a while, so digests are kept in the file ``remembered``, by path, size and time.
    """
    digest = hashlib.sha256()
    for path in weight_files(model):
        digest.update(bytes.fromhex(_remembered_digest(path, remembered)))
    config = model.path / "config.json"
    if not model.gguf_file:
        document = json.loads(config.read_text(encoding="utf-8"))
        digest.update(canonical({key: value for key, value in document.items() if key not in VOLATILE}))
    return digest.hexdigest()


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


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _remembered_digest(path: Path, remembered: Path) -> str:
    status = path.stat()
    key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
    known = _read(remembered)
    if key in known and known[key][:2] == stamp:
        return str(known[key][2])
    digest = digest_of(path)
    try:
        temporary = remembered.with_suffix(".new")
        temporary.write_text(json.dumps({**known, key: [*stamp, digest]}), encoding="utf-8")
        temporary.replace(remembered)
    except OSError:
        pass  # it is only remembered to save time
    return digest


def _read(remembered: Path) -> dict[str, Any]:
    try:
        document = json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
