"""A trainer of several processes in a real mesh: the built-in one, and a script under accelerate launch."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from decaf_node.training.callback import SOCKET_VARIABLE
from tests.daemon.processes import ROOT, Daemon, alive, mesh, until
from tests.training.tiny import make_llama, topic_rows, write_rows

pytestmark = pytest.mark.e2e
PATIENCE = 120.0
SCRIPT = """
import hashlib, os, sys
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from decaf_node.training.callback import DecafCallback

class Digests(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        self.say("begin", kwargs)
    def on_step_end(self, args, state, control, **kwargs):
        self.say(state.global_step, kwargs)
    def say(self, step, kwargs):
        digest = hashlib.sha256()
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.requires_grad:
                digest.update(parameter.detach().numpy().tobytes())
        for state in kwargs["optimizer"].state.values():
            digest.update(state["exp_avg"].numpy().tobytes())
        with open(sys.argv[2] + os.environ["RANK"], "a") as file:
            print(os.getpid(), step, digest.hexdigest(), file=file, flush=True)

torch.manual_seed(int(os.environ["RANK"]))  # they begin apart
model = get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[1]), LoraConfig(r=3, task_type="CAUSAL_LM"))
rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(5, 30, (64, 8))]
arguments = TrainingArguments(
    output_dir=sys.argv[2], max_steps=1_000_000, per_device_train_batch_size=2, report_to=[], logging_strategy="no",
    save_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=1e-2,
)
trainer = Trainer(model=model, args=arguments, train_dataset=rows)
trainer.add_callback(DecafCallback())
trainer.add_callback(Digests())
trainer.train()
"""
# as for two GPUs, which the script then does not use: `--cpu` would start one process only
LAUNCH = (
    *("accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"),
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """A maker of nodes that train a tiny language model."""
    model = make_llama(tmp_path / "llama")
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(16))
    with mesh() as make:

        def made(name: str, *peers: Daemon, **training: Any) -> Daemon:
            return make(
                name,
                *peers,
                model={"path": str(model), "device": "cpu"},
                data={"train": [str(rows)], "evaluation_fraction": 0.25, "max_length": 16},
                lora={"r": 2},
                training={"threads": 1, **training},
                script={"per_device_train_batch_size": 4, "learning_rate": 1e-2},
                round={"steps": 3, "wait_floor": 2.0, "wait_ceiling": 4.0},
            )

        yield made


def test_a_rank_that_is_killed_ends_the_trainer_which_is_started_again(node: Callable[..., Daemon]) -> None:
    b = node("b").start("--built-in")
    a = node("a", b, processes=2).start("--built-in")
    before = a.until(lambda status: status.mixes > 2 and status.saved_round > 2, PATIENCE)
    ranks = ranks_of(before.trainer.pid)
    assert sorted(ranks) == [0, 1]
    assert {end.laddr.ip for pid in ranks.values() for end in psutil.Process(pid).net_connections("inet")} == {
        "127.0.0.1"
    }
    os.kill(ranks[1], signal.SIGKILL)
    until(lambda: not alive(ranks[0]))
    after = a.until(lambda status: status.trainer.restarts == 1 and status.mixes > before.mixes + 2, PATIENCE)
    assert after.saved_round >= before.saved_round
    assert "Process 1 of the trainer's 2 was killed by SIGKILL" in a.log()
    ranks = ranks_of(after.trainer.pid)
    assert sorted(ranks) == [0, 1]
    a.signal(signal.SIGTERM)
    assert a.wait() == 0
    assert not any(alive(pid) for pid in ranks.values())


def test_all_ranks_of_a_script_hold_the_same_adapter_after_every_mix(
    node: Callable[..., Daemon], tmp_path: Path
) -> None:
    b = node("b").start("--built-in")
    a = node("a", b, trainer="external").start("--built-in")
    a.until(lambda status: status.address != "")
    notes = str(tmp_path / "digests-")
    with script(a, tmp_path, notes) as process:
        before = a.until(lambda status: status.mixes > 2 and status.saved_round > 2, PATIENCE)
        os.kill(int(lines_of(notes, 1)[0][0]), signal.SIGKILL)
        assert process.wait(PATIENCE) == 1
    with script(a, tmp_path, notes) as process:
        a.until(lambda status: status.mixes > before.mixes + 2, PATIENCE)
        a.signal(signal.SIGTERM)
        assert a.wait() == 0
        assert process.wait(PATIENCE) == 0
    lives = [list(lives_in([line[1:] for line in lines_of(notes, rank)])) for rank in (0, 1)]
    assert [len(rank) for rank in lives] == [2, 2]
    for zero, one in zip(*lives, strict=True):
        steps = min(len(zero), len(one))  # a rank that is killed has written less
        assert steps > 6
        assert zero[:steps] == one[:steps]
    assert lives[0][0][0] != lives[0][1][0]  # the second began with the saved state


@contextlib.contextmanager
def script(daemon: Daemon, folder: Path, notes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script in two processes; all are gone afterwards."""
    path = folder / "script.py"
    path.write_text(SCRIPT)
    with (folder / "script.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *LAUNCH, str(path), str(folder / "llama"), notes],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                SOCKET_VARIABLE: str(daemon.runtime / "trainer.sock"),
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ranks_of(leader: int) -> dict[int, int]:
    """Return the process of each rank."""
    launcher = Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    return {
        int(entry.removeprefix(b"RANK=")): pid
        for pid, environment in environments.items()
        for entry in environment
        if entry.startswith(b"RANK=")
    }


def lines_of(notes: str, rank: int) -> list[list[str]]:
    """Return what a rank has written: its process, the step, the digest."""
    return [line.split() for line in Path(f"{notes}{rank}").read_text().splitlines()]


def lives_in(lines: list[list[str]]) -> Iterator[list[list[str]]]:
    """Cut the lines where training begins."""
    begins = [number for number, line in enumerate(lines) if line[0] == "begin"]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield lines[begin:end]
