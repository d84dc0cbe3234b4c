"""A real encoder on real news, as in the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.training.evaluate import classify, evaluate
from decaf_node.training.examples import make_encoder
from decaf_node.training.export import load_exported
from tests.training.assets import asset
from tests.training.fake_daemon import running_worker
from tests.training.tiny import classifier_settings, write_rows

TOPICS = ("politics", "tech")


@pytest.mark.slow
def test_a_node_learns_two_topics_and_its_export_knows_them(tmp_path: Path) -> None:
    model, articles = asset("minilm"), asset("bbcnews/data")
    rows = [
        {"text": path.read_text(encoding="latin-1"), "label": topic}
        for topic in TOPICS
        for path in sorted((articles / topic).glob("*.txt"))[:40]
    ]
    held_out = write_rows(tmp_path / "held.jsonl", rows[::4])
    settings = classifier_settings(
        model,
        write_rows(tmp_path / "rows.jsonl", [row for number, row in enumerate(rows) if number % 4]),
        model={"labels": TOPICS, "cache_lower_layers": True},
        lora={"r": 8, "lora_alpha": 16, "layers_to_transform": [4, 5]},
        data={"max_length": 64, "evaluation": [held_out]},
        training={"arguments": {"per_device_train_batch_size": 8, "learning_rate": 5e-3}},
        round={"steps": 12},
    )
    with running_worker() as worker:
        ready = worker.daemon.start(settings)
        assert sorted(ready.parts["targets"]) == [
            f"base_model.model.encoder.encoder.layer.{layer}.attention.self.{name}"
            for layer in (4, 5)
            for name in ("query", "value")
        ]
        worker.daemon.whole_round()
        saved, evaluated = worker.daemon.save_between_rounds(2, tmp_path / "saved")
        assert evaluated.accuracy is not None
        assert evaluated.accuracy >= 0.9
    loaded, tokenizer = load_exported(Path(saved.export), model)
    examples = make_encoder(settings, tokenizer)(rows[::4])
    again = evaluate(loaded, examples, classify(tokenizer.pad_token_id, keyed=False), batch=8, ranked=True)
    assert again.accuracy == evaluated.accuracy
    assert again.loss == pytest.approx(evaluated.loss, rel=1e-4)
