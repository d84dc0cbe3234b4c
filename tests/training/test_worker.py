"""The built-in trainer as the daemon has it: a real process on a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from decaf_node.link import (
    Evaluated,
    InspectSnapshot,
    MixEdge,
    MixRound,
    Pause,
    Resume,
    RoundMixed,
    RoundTrained,
    SaveState,
    SnapshotInspected,
    StartTraining,
    Stop,
    TrainerFailed,
    TrainerReady,
)
from decaf_node.lowrank.codec import read_snapshot
from decaf_node.settings import Settings
from decaf_node.snapshot import digest_of, read_header
from tests.training.fake_daemon import Worker, running_worker
from tests.training.tiny import (
    causal_settings,
    classifier_settings,
    make_bert,
    make_llama,
    topic_rows,
    write_rows,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout: a restart must restore the random generators too."""
    return make_bert(tmp_path_factory.mktemp("bert"), layers=3, dropout=0.1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", topic_rows(12))


def losses(worker: Worker, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        trained, evaluated = worker.daemon.whole_round()
        assert evaluated is not None
        found += [trained.loss, evaluated.loss]
    return found


@pytest.mark.parametrize("algorithm", ["decaf", "dlora-fa"])
def test_a_restart_goes_on_bit_for_bit(bert: Path, rows: Path, tmp_path: Path, algorithm: str) -> None:
    """Factors, moments, schedule, dropout and the order of the data over epochs: all that a later save holds."""
    settings = classifier_settings(
        bert,
        rows,
        round={"steps": 3, "algorithm": algorithm},
        training={"arguments": {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 8}},
        lora={"lora_dropout": 0.2},
    )
    check_it_goes_on(settings, tmp_path, 2, 3)  # 12 examples a round: over the end of an epoch


def check_it_goes_on(settings: Settings, folder: Path, before: int, after: int) -> None:
    """Train so many rounds before and after a save, without a restart in between and with one; compare all bits."""
    first, last = before + 1, before + after + 2
    with running_worker() as worker:
        worker.daemon.label_parts = (0.7, 0.2, 0.1)  # a classifier keeps them
        worker.daemon.start(settings)
        losses(worker, before)
        saved = worker.daemon.save_between_rounds(first, folder / "saved")[0]
        worker.daemon.label_parts = ()
        worker.daemon.send(Resume())
        uninterrupted = losses(worker, after)
        expected = worker.daemon.save_between_rounds(last, folder / "expected")[0]
    with running_worker() as worker:
        worker.daemon.start(settings, StartTraining(first + 1, saved.snapshot, saved.trainer))
        # the mean of a round may be summed in other pieces, as progress is told once a second
        assert losses(worker, after) == pytest.approx(uninterrupted, rel=1e-6)
        again = worker.daemon.save_between_rounds(last, folder / "again")[0]
    assert again.snapshot.digest == expected.snapshot.digest != saved.snapshot.digest
    assert again.trainer.digest == expected.trainer.digest != saved.trainer.digest


def test_two_nodes_mix_and_are_one(bert: Path, rows: Path) -> None:
    settings = classifier_settings(bert, rows)
    other = classifier_settings(bert, rows, training={"seed": 1}, lora={"r": 3})
    with running_worker() as one, running_worker() as two:
        ready = [worker.daemon.start(given) for worker, given in ((one, settings), (two, other))]
        assert ready[0].schema == ready[1].schema
        assert [said.rank for said in ready] == [2, 3]
        trained = [worker.daemon.expect(RoundTrained).snapshot for worker in (one, two)]
        one.daemon.send(InspectSnapshot(trained[1], trained[0]))
        assert one.daemon.expect(SnapshotInspected).distance > 0
        for worker in (one, two):
            worker.daemon.send(Pause())
        before = one.daemon.mix(MixRound(1))
        one.daemon.expect(Evaluated)
        two.daemon.mix(MixRound(1))
        two.daemon.expect(Evaluated)
        one.daemon.send(MixRound(1, (MixEdge("two", 1.0, trained[0], trained[1]),)))
        mixed = one.daemon.expect(RoundMixed)
        assert mixed.norm != before.norm  # what was loaded is what the model now has
        one.daemon.expect(Evaluated)


def test_what_is_saved_is_what_was_trained(bert: Path, rows: Path, tmp_path: Path) -> None:
    with running_worker() as worker:
        ready = worker.daemon.start(classifier_settings(bert, rows))
        saved = worker.daemon.save_between_rounds(1, tmp_path / "a" / "staging")[0]
        for file in (saved.snapshot, saved.trainer):
            assert digest_of(Path(file.path)) == file.digest
            assert Path(file.path).stat().st_size == file.size_bytes
        header = read_header(Path(saved.snapshot.path))
        assert (header.round, header.schema, header.base) == (1, ready.schema, ready.base)
        _, adapter = read_snapshot(Path(saved.snapshot.path))
        assert all(product.b.any() for product in adapter.products.values())
        names = {path.name for path in Path(saved.export).iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "decaf.json"} <= names


@pytest.mark.parametrize("how", ["stop", "hang up", "hang up in the middle"])
def test_it_ends_cleanly_with_its_daemon(bert: Path, rows: Path, how: str) -> None:
    endless = {"steps": 0, "seconds": 3600.0}
    with running_worker() as worker:
        worker.daemon.start(classifier_settings(bert, rows, round=endless if how.endswith("middle") else {}))
        if not how.endswith("middle"):
            worker.daemon.expect(RoundTrained)
        if how == "stop":
            worker.daemon.send(Stop())
        else:
            worker.daemon.hang_up()
        assert worker.exit_code() == 0
        assert "Traceback" not in worker.said()


def test_a_hard_kill_leaves_no_child_behind(bert: Path, rows: Path) -> None:
    with running_worker() as worker:
        worker.daemon.start(classifier_settings(bert, rows))
        worker.daemon.expect(RoundTrained)
        children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
        assert children == []
        worker.process.send_signal(signal.SIGKILL)
        assert worker.exit_code() == -signal.SIGKILL


def failure(settings: Settings) -> tuple[TrainerFailed, int, str]:
    with running_worker() as worker:
        worker.daemon.welcome(settings)
        told = worker.daemon.expect(TrainerFailed)
        return told, worker.exit_code(), worker.said()


def test_an_expected_failure_is_a_sentence_and_an_exit_code(bert: Path, rows: Path, tmp_path: Path) -> None:
    cases: list[tuple[Settings, str, int]] = [
        (classifier_settings(tmp_path / "none", rows), "model.missing", 65),
        (classifier_settings(bert, tmp_path / "none.jsonl"), "data.missing", 65),
        (classifier_settings(bert, rows, lora={"use_dora": True}), "lora.not-a-product", 78),
        (classifier_settings(bert, rows, model={"device": "cuda"}), "model.no-cuda", 78),
    ]
    for settings, reason, code in cases:
        told, exit_code, said = failure(settings)
        assert (told.reason, told.exit_code, told.fatal) == (reason, code, True)
        assert exit_code == code
        assert told.message in said
        assert "Traceback" not in said


def test_a_loss_that_is_not_finite_ends_it_and_may_be_tried_again(bert: Path, rows: Path) -> None:
    wild = {"per_device_train_batch_size": 4, "learning_rate": 1e30, "max_grad_norm": 0.0}
    with running_worker() as worker:
        worker.daemon.start(classifier_settings(bert, rows, training={"arguments": wild}, round={"steps": 20}))
        told = worker.daemon.expect(TrainerFailed)
        assert (told.reason, told.fatal) == ("training.loss-not-finite", False)
        assert worker.exit_code() == 65
        assert list(worker.daemon.spool.iterdir()) == []
        assert "Traceback" not in worker.said()


def test_a_full_disk_writes_nothing_by_halves(bert: Path, rows: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        with running_worker() as worker:
            worker.daemon.start(classifier_settings(bert, rows))
            worker.daemon.expect(RoundTrained)
            worker.daemon.send(SaveState(1, str(small / "staging")))
            failed: Any = worker.daemon.receive()
            assert "no room left" in failed.problem
            worker.daemon.mix(MixRound(1))  # and training goes on
            worker.daemon.expect(Evaluated)
            worker.daemon.expect(RoundTrained)
        with running_worker() as worker:
            worker.daemon.spool = small
            (small / "ballast").write_bytes(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_frsize))
            worker.daemon.start(classifier_settings(bert, rows))
            told = worker.daemon.expect(TrainerFailed)
            assert (told.reason, told.fatal) == ("training.disk-full", False)
            assert worker.exit_code() == 75
        assert [path.name for path in small.glob("*.safetensors")] == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_language_model_learns_its_answers_and_its_export_loads(rows: Path, tmp_path: Path) -> None:
    llama = make_llama(tmp_path / "llama", chat=True)
    asked = [{"prompt": f"what is this {row['text']}", "text": row["label"]} for row in topic_rows(12)]
    settings = causal_settings(
        llama,
        write_rows(tmp_path / "asked.jsonl", asked),
        data={"prompt_column": "prompt", "max_length": 24},
        model={"labels": ["sport", "politics", "tech"]},
        lora={"r": 4, "target_modules": "all-linear"},
        round={"steps": 10},
        training={"arguments": {"per_device_train_batch_size": 8, "learning_rate": 2e-2}},
    )
    with running_worker() as worker:
        worker.daemon.start(settings)
        accuracies = []
        for _ in range(8):
            _, evaluated = worker.daemon.whole_round()
            assert evaluated is not None
            accuracies.append(evaluated.accuracy)
        assert accuracies[-1] == 1.0
        saved = worker.daemon.save_between_rounds(9, tmp_path / "saved")[0]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), saved.export)
    _, adapter = read_snapshot(Path(saved.snapshot.path))
    state = model.state_dict()
    for name, product in adapter.products.items():
        assert (state[f"{name}.lora_B.default.weight"] == product.b).all()
    notes = json.loads((Path(saved.export) / "decaf.json").read_text())
    assert notes["labels"] == ["sport", "politics", "tech"]


def test_a_stock_head_in_bfloat16_with_the_cache_and_the_users_own_arguments(bert: Path, rows: Path) -> None:
    settings = classifier_settings(
        bert,
        rows,
        model={"pooling": "head", "dtype": "bfloat16", "cache_lower_layers": True},
        lora={"layers_to_transform": [2], "use_rslora": True},
        training={"arguments": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "optim": "sgd"}},
        mixing={"wire": "bfloat16"},
        round={"overlap": True, "steps": 3},
    )
    with running_worker() as worker:
        ready = worker.daemon.start(settings)
        assert isinstance(ready, TrainerReady)
        assert all("layer.2." in name for name in ready.parts["targets"])
        for _ in range(2):
            trained, evaluated = worker.daemon.whole_round()
            assert evaluated is not None
            assert trained.loss > 0
