"""The settings that ``init`` and ``join`` write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decaf_node.cli.first_settings import FirstSettings
from decaf_node.errors import BadSettings
from decaf_node.settings import Settings, load_settings


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("dog", "cat", ".hidden"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "a.jpeg").touch()
    (tmp_path / "pets" / "notes").mkdir()
    return tmp_path / "pets"


def written(folder: Path, model_type: str, *data: Path, kind: str = "", mesh: list[str] | None = None) -> Settings:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [kind] if kind else []}))
    first = FirstSettings(folder / "c.toml", folder, list(data), "127.0.0.1", "")
    first.take_labels(mesh)
    first.check("lab")
    with first.written("lab"):
        return load_settings(folder / "c.toml", {})


def test_the_environment_comes_on_top_of_what_is_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So an invitation names the port that ``run`` will listen at."""
    monkeypatch.setenv("DECAF_NODE__LISTEN__ENROLMENT_PORT", "7001")
    monkeypatch.setenv("DECAF_NODE__DISCOVERY__MDNS", "false")
    monkeypatch.setenv("DECAF_NODE__DATA__EVALUATION", '["held/out.jsonl"]')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    first = FirstSettings(tmp_path / "c.toml", tmp_path, [tmp_path / "rows.jsonl"], "127.0.0.1", "")
    assert first.check("lab").listen.enrolment_port == 7001
    assert first.check("lab").data.evaluation == (tmp_path / "held" / "out.jsonl",)
    assert not first.discovery().mdns
    with first.written("lab"):
        assert "7001" not in (tmp_path / "c.toml").read_text()
    monkeypatch.setenv("DECAF_NODE__MESH__NAME", "farm")
    with pytest.raises(BadSettings, match="are of the mesh 'farm', not of 'lab'"):
        first.check("lab")


def test_files_are_texts(tmp_path: Path) -> None:
    model = written(tmp_path, "llama", tmp_path / "rows.jsonl").model
    assert (model.task, model.labels) == ("causal-lm", ())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{"text": "a", "label": "b"}\n\n{"text": "a", "label": "7"}\n{"text": "no label"}\n'),
        ("rows.csv", '\ufefftext,label\na,b\n"c,\nd",7\ne,\n'),
    ],
)
def test_texts_with_labels_name_them_where_the_model_only_reads(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    model = written(tmp_path, "bert", tmp_path / name, kind="BertModel").model
    assert (model.task, model.labels) == ("sequence-classification", ("7", "b"))
    (tmp_path / "c.toml").unlink()
    model = written(tmp_path, "llama", tmp_path / name, kind="LlamaForCausalLM").model
    assert (model.task, model.labels) == ("causal-lm", ())


def test_who_joins_has_the_labels_of_the_mesh_and_its_order(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\nc,d\n")
    model = written(tmp_path, "bert", tmp_path / "rows.csv", kind="BertModel", mesh=["z", "d", "b"]).model
    assert model.labels == ("z", "d", "b")
    (tmp_path / "c.toml").unlink()
    model = written(tmp_path, "bert", tmp_path / "rows.csv", kind="BertModel", mesh=["b", "z"]).model
    assert model.labels == ("b", "d"), "then the two are compared, and told apart"


UNCLEAR = ["", "{", '{"text": "a"}\n', "\udcff", "[1]\n", "[" * 5000, '{"label": 1.5}\n', '{"label": ["a"]}\n']
TOO_MANY = "".join(f'{{"label": "{number}"}}\n' for number in range(1001))


@pytest.mark.parametrize("content", [*UNCLEAR, TOO_MANY])
def test_rows_without_labels_or_sense_are_left_to_the_trainer(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert written(tmp_path, "bert", tmp_path / "rows.jsonl", kind="BertModel").model.task == "causal-lm"


def test_folders_of_images_name_the_task_and_its_labels(tmp_path: Path, pets: Path) -> None:
    settings = written(tmp_path, "vit", pets)
    assert settings.data.train == (pets,)
    assert (settings.model.task, settings.model.labels) == ("image-classification", ("cat", "dog"))


def test_clip_is_known_by_its_model(tmp_path: Path, pets: Path) -> None:
    model = written(tmp_path, "clip", pets).model
    assert (model.task, model.labels) == ("clip", ("cat", "dog"))


def test_captions_need_no_labels(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "metadata.jsonl").touch()
    model = written(tmp_path, "clip", tmp_path / "flat").model
    assert (model.task, model.labels) == ("clip", ())


def test_a_folder_that_may_not_be_looked_into_is_left_to_the_service(
    tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    assert written(tmp_path, "vit", pets).data.train == (pets,)
