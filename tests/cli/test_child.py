"""The child that finds things out: nothing of it is left, however the command or the child ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decaf_node.cli.child import converse
from decaf_node.errors import BadData, TryAgain

WAITS = """
import sys, time
from pathlib import Path
Path(sys.argv[0]).with_name("started").touch()
time.sleep(60)
"""
PARENT = """
import sys
from decaf_node.cli.child import converse, scratch_folder
with scratch_folder("test") as folder:
    print(folder, flush=True)
    converse(sys.argv[1], {}, folder)
"""


def child(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[2]}")


def test_what_it_finds_is_told_apart_from_what_libraries_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """import json, sys
print("a library says hello"); print("[1]"); print('{"doing": "this"}')
print(json.dumps({"found": json.load(sys.stdin)}))"""
    child(tmp_path, "finds", code, monkeypatch)
    assert converse("finds", {"a": [1, "ü"]}, tmp_path) == {"a": [1, "ü"]}


def test_what_is_wrong_keeps_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """print('{"error": {"reason": "data.empty", "message": "It is empty.", "exit_code": 65}}')"""
    child(tmp_path, "fails", code, monkeypatch)
    with pytest.raises(BadData) as caught:
        converse("fails", {}, tmp_path)
    assert (caught.value.reason, caught.value.message) == ("data.empty", "It is empty.")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise ImportError('no torch')", "ended with exit code 1. It said: ImportError: no torch"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_child_that_crashes_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    child(tmp_path, "crashes", code, monkeypatch)
    with pytest.raises(TryAgain) as caught:
        converse("crashes", {}, tmp_path)
    assert caught.value.reason == "child.crashed"
    assert sentence in caught.value.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    name = f"waits_{os.getpid()}_{number}"
    child(tmp_path, name, WAITS, monkeypatch)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    folder = Path(parent.stdout.readline().decode().strip())
    end = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert (tmp_path / "started").exists()
    parent.send_signal(number)
    assert parent.wait(30) != 0
    assert not folder.exists()
    assert not _running(name)
    parent.stdout.close()


def _running(name: str) -> bool:
    return any(f"-m\0{name}".encode() in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
