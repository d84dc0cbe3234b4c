"""The demo's processes: none is left behind, whatever ends the demo."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psutil
import pytest

from decaf_node.cli.demo.processes import last_words, listener, start_python, stop_all
from decaf_node.cli.ending import ending_cleanly, undisturbed
from decaf_node.errors import BadData

SAY_AND_WAIT = "import os, signal, sys; print(os.getpid(), flush=True); signal.pause()"


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_it_sees_no_settings_of_the_user_and_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECAF_NODE__ROUND__STEPS", "9")
    code = "import os; print(sorted(k for k in os.environ if k.startswith(('DECAF_NODE__', 'HF_'))))"
    process = start_python(["-c", code], tmp_path / "log", stdout=subprocess.PIPE)
    said, _ = process.communicate()
    assert said == "['HF_DATASETS_OFFLINE', 'HF_HUB_OFFLINE']\n"


def test_what_it_says_goes_to_the_log(tmp_path: Path) -> None:
    start_python(["-c", "import sys; print('out'); print('err', file=sys.stderr)"], tmp_path / "log").wait()
    assert (tmp_path / "log").read_text().split() == ["out", "err"]


def test_stopping_asks_first(tmp_path: Path) -> None:
    process = start_python(["-c", SAY_AND_WAIT], tmp_path / "log", stdout=subprocess.PIPE)
    read_line(process)
    stop_all([process])
    assert process.returncode == -signal.SIGTERM


def test_who_does_not_answer_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decaf_node.cli.demo.processes.STOP_SECONDS", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); "
    deaf += "[signal.pause() for _ in iter(int, 1)]"
    process = start_python(["-c", deaf], tmp_path / "log", stdout=subprocess.PIPE)
    read_line(process)
    stop_all([process])
    assert process.returncode == -signal.SIGKILL


def test_a_node_started_by_hand_is_found_by_its_socket(tmp_path: Path) -> None:
    code = "import socket, sys, signal; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    code += "print('here', flush=True); signal.pause()"
    path = tmp_path / "s"
    stranger = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert read_line(stranger) == "here"
    assert listener(path) == stranger.pid
    reaper = Thread(target=stranger.communicate)  # as the shell does that it was started from
    reaper.start()
    stop_all([], [path])
    reaper.join()
    assert stranger.returncode == -signal.SIGTERM
    assert listener(path) is None


def test_nobody_listens_on_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert listener(tmp_path / "s") is None
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "bound"))
        assert listener(tmp_path / "bound") is None


@pytest.mark.slow
def test_it_ends_when_the_demo_is_killed(tmp_path: Path) -> None:
    """Even kill -9 of the demo leaves nobody behind: the kernel tells the child."""
    parent_code = (
        "import signal, subprocess, sys; from pathlib import Path; "
        "from decaf_node.cli.demo.processes import start_python; "
        f"p = start_python(['-c', {SAY_AND_WAIT!r}], Path(sys.argv[1]), stdout=subprocess.PIPE); "
        "print(p.stdout.readline(), flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(read_line(parent)))
    parent.kill()
    parent.communicate()
    child.wait(timeout=10)
    assert not child.is_running()


def test_ctrl_c_waits_until_the_block_is_over() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what is done within is the point
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            steps.append("finished")
        steps.append("not reached")
    assert steps == ["finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_it_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, ending_cleanly():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_last_words_keep_reason_and_kind(tmp_path: Path) -> None:
    for start in ("ERROR ", "decaf-node: ", "2026-11-23 05:00:00 error    "):
        (tmp_path / "log").write_text(f"INFO hello\n{start}There is no model at x; set it. [model.not-a-model]\nbye\n")
        error = last_words(tmp_path / "log", 65)
        assert (type(error), error.reason) == (BadData, "model.not-a-model")
        assert error.message == "There is no model at x; set it."


def test_without_last_words_the_log_speaks(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    assert str(last_words(tmp_path / "log", 1)).endswith("it said last: two [demo.process-ended]")
    assert "(SIGKILL); run the demo again" in last_words(tmp_path / "log", -9).message
