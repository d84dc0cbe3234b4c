"""What a node leaves on its disk after some rounds: settings, a state folder with a history and a real adapter."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from decaf_node.cli.toml import toml
from decaf_node.daemon.store import open_store
from decaf_node.settings import load_settings
from decaf_node.training.base import base_fingerprint
from decaf_node.training.own_alone import own_alone
from tests.cli.reports import round_report
from tests.training.tiny import LABELS, make_bert, topic_rows, write_rows

STEPS = 3  # a round, see round_report


def saved_node(folder: Path, rounds: int = 4, **sections: dict[str, Any]) -> Path:
    """Make a node in ``folder`` that has trained for some rounds; return its settings."""
    model = make_bert(folder / "bert")
    document: dict[str, dict[str, Any]] = {
        "mesh": {"name": "lab"},
        "model": {
            "path": str(model),
            "task": "sequence-classification",
            "pooling": "mean",
            "labels": list(LABELS),
            "device": "cpu",
        },
        "lora": {"r": 2, "lora_alpha": 4},
        "data": {
            "train": [
                str(write_rows(folder / "rows.jsonl", topic_rows(12))),
            ],
            "max_length": 16,
        },
        "training": {"threads": 1},
        "training.arguments": {"per_device_train_batch_size": 4, "learning_rate": 1e-2},
        "round": {"steps": STEPS},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    config = folder / "config.toml"
    config.write_text(toml(document))
    settings = load_settings(config, {})
    base = base_fingerprint(settings.model, folder / "digests.json")
    exported = own_alone(settings, base, rounds * STEPS, folder / "runs", lambda step: None)
    with closing(open_store(folder / "state", "lab")) as store:
        exported.rename(store.folder / "export" / "saved")
        store.adapter_folder.symlink_to("saved")
        for number in range(1, rounds + 1):
            store.record_round(replace(round_report(number), steps=STEPS, saved=True))
    return config
