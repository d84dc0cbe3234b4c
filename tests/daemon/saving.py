"""A stand-in for the trainer's half of a save: valid files in a staging folder."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from decaf_node.daemon.store import Store
from decaf_node.link import File
from decaf_node.mesh.events import Edge
from decaf_node.snapshot import metadata

RANK = 2


def snapshot_bytes(round: int, values: int = 4) -> bytes:
    """A snapshot of one layer whose content is a function of the round."""
    sides = {"lora_A": [RANK, values], "lora_B": [values, RANK]}
    header: dict[str, object] = {"__metadata__": metadata("5" * 64, "b" * 64, round, {"q": 1.0})}
    for position, (name, shape) in enumerate(sides.items()):
        size = RANK * values * 4
        header[f"q.{name}.weight"] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [position * size, (position + 1) * size],
        }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + struct.pack("<f", float(round)) * (2 * RANK * values)


def write_file(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return File(str(path), hashlib.sha256(content).hexdigest(), len(content))


def stage(store: Store, round: int, values: int = 4) -> tuple[File, File, Path]:
    """Write what the trainer writes for ``round``: snapshot, trainer state, export folder."""
    folder = store.staging(round)
    snapshot = write_file(folder / "snapshot", snapshot_bytes(round, values))
    trainer = write_file(folder / "trainer", f"optimizer after {round}".encode() * values)
    export = folder / "export"
    export.mkdir()
    (export / "adapter_config.json").write_text(json.dumps({"round": round}))
    (export / "adapter_model.safetensors").write_bytes(snapshot_bytes(round, values))
    return snapshot, trainer, export


def save(store: Store, round: int, mixed: tuple[Edge, ...] = (), values: int = 4) -> None:
    store.commit_round(round, round - 1, *stage(store, round, values), details={"steps": round}, mixed=mixed)


def exported_round(state: Path) -> int:
    """Return the round of the adapter that a user would load; both of its files must be of it."""
    adapter = state / "export" / "adapter"
    round = int(json.loads((adapter / "adapter_config.json").read_text())["round"])
    content = (adapter / "adapter_model.safetensors").read_bytes()
    assert content[-4:] == struct.pack("<f", float(round))
    return round


def files(state: Path) -> list[str]:
    """Everything that a saved state consists of, but for the database, as paths below the state folder."""
    folders = ("snapshots", "trainer", "export", "staging")
    return sorted(str(path.relative_to(state)) for name in folders for path in (state / name).iterdir())
