"""What the demo lays out on disk is what nodes read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.assets import own_model
from decaf_node.cli.demo.newsrooms import every, lay_out
from decaf_node.cli.demo.recipe import (
    PROMPT_CHARACTERS,
    beginning,
    classifier,
    language_model,
    own_classifier,
    prompt,
)
from decaf_node.cli.demo.shares import deal
from decaf_node.errors import BadData
from decaf_node.settings import Settings, load_settings

ARTICLES = [Article(f'{label} "{number}" \\ \n', label) for label in ("a", "b", "c", "d", "ü") for number in range(50)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "minilm"
    folder.mkdir()
    (folder / "config.json").write_text('{"num_hidden_layers": 6}')
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_four_nodes_that_meet_only_each_other(model: Path, tmp_path: Path) -> None:
    dealt = deal(ARTICLES, 4, 20, 30, False, 0)
    (tmp_path / "decaf-x").mkdir()
    layout = lay_out(classifier(model, iid=False), dealt, 6, 3, tmp_path / "decaf-x")
    for number, room in enumerate(layout.newsrooms, 1):
        settings = load_settings(room.places.config, {})
        assert settings.node.name == room.name == f"newsroom-{number}"
        assert settings.mesh.name == "decaf-x"
        assert settings.discovery.interfaces == ("127.0.0.1",)
        assert settings.listen.address == "127.0.0.1"
        assert settings.listen.port == 0
        assert settings.model.labels == ("a", "b", "c", "d", "ü")
        assert settings.lora["layers_to_transform"] == [4, 5]
        assert (settings.round.steps, settings.round.limit, settings.training.seed) == (3, 0, 3)
        assert load_settings(room.alone, {}).round.limit == 6
        held = rows(settings.data.train[0])
        assert [Article(row["text"], row["label"]) for row in held] == list(room.share)
        assert len(rows(settings.data.evaluation[0])) == len(dealt.test)


def test_one_place_has_all_articles_and_as_many_steps(model: Path, tmp_path: Path) -> None:
    layout = lay_out(classifier(model, iid=True), deal(ARTICLES, 4, 20, 30, True, 0), 6, 0, tmp_path)
    settings = load_settings(layout.one_place, {})
    assert (settings.round.steps, settings.round.limit) == (4 * 3, 6)
    assert len(rows(settings.data.train[0])) == 4 * 20


def test_a_language_model_gets_questions(tmp_path: Path) -> None:
    layout = lay_out(language_model(tmp_path, iid=False), deal(ARTICLES, 4, 20, 30, False, 0), 6, 0, tmp_path)
    settings: Settings = load_settings(layout.newsrooms[0].places.config, {})
    assert settings.data.prompt_column == "prompt"
    row = rows(settings.data.train[0])[0]
    assert row["text"] in ("a", "b")
    assert "a, b, c, d or ü?" in row["prompt"]


def test_a_question_is_about_whole_words() -> None:
    words = "word " * PROMPT_CHARACTERS
    assert beginning(words[:PROMPT_CHARACTERS]) == words[:PROMPT_CHARACTERS]
    assert beginning(words).endswith("word ...")
    assert len(beginning(words)) <= PROMPT_CHARACTERS + len(" ...")
    exact = "x" * (PROMPT_CHARACTERS - 5) + " word next"
    assert beginning(exact) == exact.removesuffix(" next") + " ..."
    assert beginning("x" * 2 * PROMPT_CHARACTERS) == "x" * PROMPT_CHARACTERS + " ..."
    assert prompt("  A short one.\n", ("a", "b")) == "A short one.\n\nWhich topic is this: a or b?\nTopic:"


def test_a_model_of_ones_own_needs_no_known_parts(tmp_path: Path) -> None:
    layout = lay_out(own_classifier(tmp_path, iid=False), deal(ARTICLES, 4, 20, 30, False, 0), 6, 0, tmp_path)
    assert load_settings(layout.newsrooms[0].places.config, {}).lora["target_modules"] == "all-linear"


@pytest.mark.parametrize(("rounds", "step"), [(30, 3), (12, 1), (7, 1), (1, 1), (40, 4)])
def test_the_last_round_is_always_evaluated(rounds: int, step: int) -> None:
    assert every(rounds, 10) == step
    assert rounds % step == 0


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not the model folder"):
        classifier(tmp_path, iid=False)


def test_what_cannot_be_a_model_is_said_before_anything_starts(tmp_path: Path) -> None:
    for wrong, reason in (("none", "model.missing"), ("file", "model.missing"), ("empty", "model.not-a-model")):
        (tmp_path / "file").touch()
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(BadData, match=wrong) as caught:
            own_model(tmp_path / wrong)
        assert caught.value.reason == reason
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "empty" / name).touch()
    assert own_model(tmp_path / "empty") == tmp_path / "empty"
