"""A user's own training script with one line more, against a real socket."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decaf_node.link import (
    Evaluated,
    MixRound,
    RoundTrained,
    SaveState,
    StartTraining,
    StateSaved,
    Stop,
    TrainerFailed,
)
from decaf_node.places import find_places
from decaf_node.snapshot import read_header
from decaf_node.training.callback import SOCKET_VARIABLE, default_socket
from tests.training.fake_daemon import PATIENCE_SECONDS, FakeDaemon, listening
from tests.training.tiny import causal_settings, make_llama, topic_rows, write_rows

SCRIPT = """
import sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from decaf_node.training.callback import DecafCallback

torch.manual_seed(3)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
if sys.argv[2] == "lora":
    model = get_peft_model(model, LoraConfig(r=3, target_modules=["q_proj", "o_proj"]))
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(5, 30, (64, 8))]
arguments = TrainingArguments(
    output_dir=sys.argv[3], max_steps=int(sys.argv[4]), per_device_train_batch_size=2, report_to=[], logging_steps=3,
    save_strategy="no", eval_strategy="steps", eval_steps=2, disable_tqdm=True, use_cpu=True, learning_rate=1e-2,
)
trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:4])
trainer.add_callback(DecafCallback())
trainer.train()
print("trained", trainer.state.global_step)
"""


class Script:
    """The script as a process of the user's, who has told it where the daemon listens."""

    def __init__(self, path: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *(str(argument) for argument in arguments)],
            env={**os.environ, SOCKET_VARIABLE: str(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(self) -> str:
        return self.process.communicate(timeout=PATIENCE_SECONDS)[0]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.slow
def test_one_line_makes_a_script_the_trainer_of_a_node(llama: Path, tmp_path: Path) -> None:
    settings = causal_settings(llama, write_rows(tmp_path / "unused.jsonl", topic_rows(1)), round={"steps": 4})
    with listening() as (server, path, spool):
        script = Script(path, llama, "lora", tmp_path / "out", 1_000_000)
        daemon = FakeDaemon(server.accept()[0], spool)
        ready = daemon.start(settings, StartTraining(5))
        assert ready.rank == 3
        assert len(ready.parts["targets"]) == 4
        evaluations = []
        trained = []
        for number in (5, 6):
            while not isinstance(message := daemon.receive(), RoundTrained):
                if isinstance(message, Evaluated):  # the script's own evaluations, once a round
                    evaluations.append(message)
            trained.append(message)
            daemon.mix(MixRound(number))
        assert [(round.round, round.steps) for round in trained] == [(5, 4), (6, 4)]
        assert read_header(Path(trained[1].snapshot.path)).round == 6
        daemon.send(SaveState(6, str(tmp_path / "saved")))
        while not isinstance(message := daemon.receive(), StateSaved):
            if isinstance(message, Evaluated):
                evaluations.append(message)
        assert (Path(message.export) / "adapter_model.safetensors").exists()
        assert evaluations
        assert evaluations[0].loss > 0
        assert evaluations[0].accuracy is None
        assert evaluations[0].examples == 4
        daemon.send(Stop())
        said = script.output()
        assert script.process.returncode == 0
        assert "trained" in said.splitlines()[-1]
        daemon.hang_up()


@pytest.mark.slow
def test_a_model_without_an_adapter_is_refused_in_a_sentence(llama: Path, tmp_path: Path) -> None:
    with listening() as (server, path, spool):
        script = Script(path, llama, "none", tmp_path / "out", 10)
        daemon = FakeDaemon(server.accept()[0], spool)
        daemon.welcome(causal_settings(llama, llama))
        told = daemon.expect(TrainerFailed)
        assert (told.reason, told.exit_code, told.fatal) == ("training.no-adapter", 78, True)
        assert "get_peft_model" in script.output()
        assert script.process.returncode == 1
        daemon.hang_up()


def test_the_socket_is_the_daemons_own_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/decaf-node")
    assert default_socket() == find_places(os.environ).trainer_socket == Path("/run/decaf-node/trainer.sock")
    monkeypatch.setenv(SOCKET_VARIABLE, "/elsewhere.sock")
    assert default_socket() == Path("/elsewhere.sock")
