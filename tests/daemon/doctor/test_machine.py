"""Machine, model and data are looked at by a child: what it finds counts, and it never outlives its time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from decaf_node.daemon.doctor.machine import Machine, look_at_machine
from decaf_node.places import Places
from decaf_node.settings import ModelSection, Settings
from decaf_node.training.base import base_fingerprint
from decaf_node.training.checkup import gpu_trouble
from tests.daemon.processes import ROOT
from tests.training.tiny import classifier_settings, make_bert, topic_rows, write_rows

EMPTY = Settings.model_validate({"model": {"path": "/none"}, "data": {"train": ["/none"]}})


def places(folder: Path) -> Places:
    return Places(folder / "c", folder / "s", folder / "r")


def said(machine: Machine) -> list[str]:
    return [f"{finding.layer} {finding.mark} {finding.reason}".strip() for finding in machine.findings]


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Give the child a torch of our own to load: what it does."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return (tmp_path / "torch.py").write_text


async def test_no_torch(tmp_path: Path, torch: Callable[[str], object]) -> None:
    torch("raise ImportError('libcudart.so.12: cannot open shared object file')")
    machine = await look_at_machine(EMPTY, places(tmp_path))
    assert said(machine) == ["machine failure machine.no-torch", "model unseen", "data unseen"]
    assert "libcudart.so.12" in machine.findings[0].message


async def test_a_torch_for_another_processor(tmp_path: Path, torch: Callable[[str], object]) -> None:
    torch("import os, signal; print('{\"layer\": 1}'); os.kill(os.getpid(), signal.SIGILL)")
    machine = await look_at_machine(EMPTY, places(tmp_path))
    assert said(machine) == ["machine failure machine.crashes", "model unseen", "data unseen"]
    assert "SIGILL" in machine.findings[0].message


async def test_one_that_says_much_is_heard_to_the_end(tmp_path: Path, torch: Callable[[str], object]) -> None:
    torch("import os\nos.write(1, b'x\\n' * 300_000)\nos.write(2, b'y\\n' * 300_000 + b'last\\n')\nos._exit(3)")
    machine = await look_at_machine(EMPTY, places(tmp_path))
    assert said(machine) == ["machine failure machine.crashes", "model unseen", "data unseen"]
    assert machine.findings[0].message.endswith("ended with exit code 3. It said: last")


def test_a_gpu_that_others_fill_is_not_broken() -> None:
    for words in ("CUDA out of memory. Tried to allocate 20 MiB", "CUDA error: all CUDA-capable devices are busy"):
        assert gpu_trouble(RuntimeError(words)).reason == "machine.gpu-full"
    assert gpu_trouble(RuntimeError("CUDA error: an illegal memory access")).reason == "machine.gpu-fails"


async def test_one_that_hangs_is_ended(tmp_path: Path, torch: Callable[[str], object]) -> None:
    torch("import time; time.sleep(1000)")
    machine = await look_at_machine(EMPTY, places(tmp_path), seconds=0.5)
    assert said(machine) == ["machine warning machine.too-slow", "model unseen", "data unseen"]
    assert not [child for child in psutil.Process().children() if "checkup" in " ".join(child.cmdline())]


@pytest.mark.slow
async def test_a_real_model_and_its_mistakes(tmp_path: Path) -> None:
    model, data = make_bert(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", topic_rows())
    machine = await look_at_machine(classifier_settings(model, data), places(tmp_path))
    assert said(machine) == ["machine well", "machine well", "model well", "model well", "data well"]
    assert machine.base == base_fingerprint(ModelSection(path=model), tmp_path / "digests")
    assert not (tmp_path / "r").exists(), "nothing is written at the node's places"

    (model / "config.json").write_text("{")
    named = classifier_settings(model, data, training={"trainer": "external"})
    machine = await look_at_machine(named, places(tmp_path))
    assert said(machine) == ["machine unseen", "model failure model.damaged", "data unseen"]
    make_bert(model)

    odd = classifier_settings(model, data, model={"labels": ["sport", "tech"]}, lora={"r": 2, "rank": 3})
    machine = await look_at_machine(odd, places(tmp_path))
    assert said(machine)[2:] == ["model failure lora.unknown-key", "model well", "data failure data.unknown-label"]
