"""What nodes of the learning bench learn: answers in words, and images whose lower layers have run already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTImageProcessorPil

from benchmarks.learning.__main__ import main
from benchmarks.learning.images import CLOTHES, Garment, Key, cut_off, load_images, read_garments
from benchmarks.learning.learner import without_end
from benchmarks.learning.task import holding, task_of
from benchmarks.one_model import Learner, Shared, load_shared, rows_of
from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.recipe import prompt
from decaf_node.lowrank.adapter import Adapter
from tests.training.pictured import fashion_mnist, image_settings
from tests.training.tiny import causal_settings, make_llama

LAYERS = 3


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "dinov2"
    config = Dinov2Config(hidden_size=24, num_hidden_layers=LAYERS, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2ForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return folder


def test_a_classifier_goes_on_from_what_its_lower_layers_have_made(vision: Path) -> None:
    classifier: Any = Dinov2ForImageClassification.from_pretrained(vision)
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        whole = classifier(pixel_values=pixels).logits
        lower = cut_off(classifier, LAYERS - 1)
        assert torch.equal(classifier(pixel_values=lower(pixels)).logits, whole)


def test_images_are_learned_at_any_rank_from_what_one_has_kept(vision: Path) -> None:
    random, kept = np.random.default_rng(0), dict[Key, torch.Tensor]()
    garments = [Garment(random.integers(0, 256, (28, 28), np.uint8), label) for label in CLOTHES]
    loras = [{"r": rank, "target_modules": None, "layers_to_transform": [LAYERS - 1]} for rank in (2, 4)]
    shareds = [load_images(image_settings("image-classification", vision, vision, lora=lora), kept) for lora in loras]
    examples = shareds[0].encode([*garments, *garments])
    assert len(kept) == len(garments)
    for shared in shareds:
        assert_learns(shared, examples)


def test_a_language_model_is_asked_and_learns_the_labels_word(tmp_path: Path) -> None:
    labels = ("sport", "politics")
    articles = [Article("the team ran", "sport"), Article("a vote on the road", "politics")]
    model = make_llama(tmp_path / "llama", chat=True)
    settings = causal_settings(
        model, tmp_path / "none.jsonl", model={"labels": labels}, data={"prompt_column": "prompt", "max_length": 64}
    )
    assert rows_of(settings, articles)[0] == {"prompt": prompt("the team ran", labels), "text": "sport"}
    shared = load_shared(settings)
    assert_learns(shared, shared.encode(articles))


def assert_learns(shared: Shared, examples: Any) -> None:
    learned = Learner(shared, without_end(examples, 0)).train(shared.initial, 2)
    assert any(not torch.equal(one.b, shared.initial.products[name].b) for name, one in learned.products.items())
    assert 0.0 <= shared.accuracy(learned, examples) <= 1.0
    loaded = logits(shared, learned, examples)
    with shared.adding(learned):
        added = logits(shared, Adapter(shared.initial.products, learned.tensors), examples)
    assert torch.allclose(added, loaded, atol=1e-5)
    assert torch.equal(logits(shared, learned, examples), loaded)  # the base is as before


def logits(shared: Shared, adapter: Adapter, examples: Any) -> torch.Tensor:
    shared.live.load(adapter)
    shared.model.eval()
    with torch.no_grad():
        answer: torch.Tensor = shared.model(**shared.task.collate(examples)).logits
    return answer


def test_no_garment_is_there_twice_and_each_has_its_label() -> None:
    pixels, classes = fashion_mnist()
    garments = read_garments("t10k")
    assert len({garment.key for garment in garments}) == len(garments) == len(pixels)
    assert [garment.label for garment in garments[:50]] == [CLOTHES[label] for label in classes[:50]]
    assert np.array_equal(garments[49].pixels, pixels[49])


def test_a_fifth_is_held_out_where_there_is_little() -> None:
    articles = [Article(str(number), "ab"[number % 2]) for number in range(20)]
    task = task_of(articles[:10], articles[10:], {}, load_shared)
    assert (task.labels, len(task.validation), len(task.train), len(task.test)) == (("a", "b"), 2, 8, 10)
    more = holding(task, 1)
    assert (more.validation, more.train) == (articles[:1], articles[1:10])
    assert holding(more, 400).validation == task.validation


def test_labels_are_weighed_only_where_there_is_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--task", "bbc-answers", "--methods", "decaf, int8", "decaf, balanced", "decaf, own rows"])
    assert "leave out decaf, balanced, decaf, own rows, by --methods" in capsys.readouterr().err
