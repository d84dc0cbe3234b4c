"""Which base model a folder holds: its weight files and their fingerprint, without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from decaf_node.settings import ModelSection
from decaf_node.snapshot import digest_of

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")


def weight_files(model: ModelSection) -> list[Path]:
    """Return the files that hold the weights, sorted: safetensors, else the GGUF file, else pickles."""
    if model.gguf_file:
        return [model.path / model.gguf_file]
    found = sorted(model.path.glob("*.safetensors"))
    return found or sorted(path for pattern in PICKLED for path in model.path.glob(pattern))


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
