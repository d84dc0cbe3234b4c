from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from decaf_node.settings import ModelSection, Settings
from decaf_node.training.base import base_fingerprint
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base
from decaf_node.training.schema import schema_of, schema_parts
from tests.training.tiny import classifier_settings, make_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


def parts_of(settings: Settings) -> dict[str, Any]:
    live = find_adapter(attach_lora(load_base(settings.model, 0), settings))
    return schema_parts(settings, live, "base")


def schema(bert: Path, **sections: dict[str, Any]) -> str:
    return schema_of(parts_of(classifier_settings(bert, bert, **sections)))


def test_products_of_other_ranks_and_scales_can_mix(bert: Path) -> None:
    usual = schema(bert)
    assert usual == schema(bert, lora={"r": 5})
    assert usual == schema(bert, lora={"use_rslora": True})
    assert usual == schema(bert, training={"seed": 9}, mixing={"initial_a_seed": 4})
    assert usual == schema(bert, model={"dtype": "bfloat16"})


def test_what_must_agree_changes_the_schema(bert: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"lora": {"target_modules": ["query"]}},
        {"lora": {"modules_to_save": ["LayerNorm"]}},
        {"model": {"labels": ["politics", "sport", "tech"]}},
        {"model": {"pooling": "head"}},
        {"round": {"algorithm": "dlora"}},
        {"round": {"algorithm": "dlora"}, "lora": {"r": 3}},
        {"round": {"algorithm": "dlora"}, "lora": {"lora_alpha": 3}},
        {"round": {"algorithm": "dlora-fa"}},
        {"round": {"algorithm": "dlora-fa"}, "mixing": {"initial_a_seed": 4}},
    ]
    assert len({schema(bert, **change) for change in changes}) == len(changes)


def test_the_parts_are_plain_json(bert: Path) -> None:
    parts = parts_of(classifier_settings(bert, bert))
    assert json.loads(json.dumps(parts)) == parts


def test_the_base_is_known_by_its_bytes(tmp_path: Path) -> None:
    remembered = tmp_path / "fingerprints.json"
    one, same, other = (make_bert(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))

    def fingerprint(folder: Path) -> str:
        return base_fingerprint(ModelSection(path=folder), remembered)

    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    config = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps({**config, "transformers_version": "0.1"}))
    assert fingerprint(one) == fingerprint(same)
    (same / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1.0}))
    assert fingerprint(one) != fingerprint(same)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    remembered, folder = tmp_path / "fingerprints.json", make_bert(tmp_path / "a")
    section, weights = ModelSection(path=folder), folder / "model.safetensors"
    before = base_fingerprint(section, remembered)
    document = json.loads(remembered.read_text())
    size, time, _ = document[str(weights.resolve())]
    remembered.write_text(json.dumps({str(weights.resolve()): [size, time, "00" * 32]}))
    assert base_fingerprint(section, remembered) != before  # what is remembered is used
    os.utime(weights, ns=(time + 1, time + 1))
    assert base_fingerprint(section, remembered) == before  # and no longer, once the file has another time


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_memory_costs_only_time(tmp_path: Path, content: str) -> None:
    section = ModelSection(path=make_bert(tmp_path / "a"))
    before = base_fingerprint(section, tmp_path / "none" / "fingerprints.json")  # cannot be written either
    (tmp_path / "fingerprints.json").write_text(content)
    assert base_fingerprint(section, tmp_path / "fingerprints.json") == before
