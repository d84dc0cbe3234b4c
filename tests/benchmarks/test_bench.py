"""What `make bench` runs, and the page that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import HERE, MINUTES, Printed, about, main, page

HELPERS = {"__init__", "__main__", "lockstep", "machine", "one_model", "seven_b"}
ELSEWHERE = {"gpu"}  # on a machine that has one


def test_no_benchmark_is_forgotten() -> None:
    there = {path.stem for path in HERE.glob("*.py")} - HELPERS - ELSEWHERE
    assert {name for name in MINUTES if "." not in name} == there
    assert all((HERE / f"{name.replace('.', '/')}.py").is_file() for name in MINUTES)


def test_the_page_has_what_each_has_printed_last_and_where() -> None:
    on = {"cpu": "A CPU", "cores": 2, "gpu": "", "torch": "2.13", "python": "3.11", "load": 1.0}
    text = page({"wire": Printed("a table", on, "2026-11-30")})
    assert "## wire" in text
    assert "## mix" not in text
    assert "2026-11-30, 2 cores of A CPU, torch 2.13, Python 3.11, load 1.0 at its end." in text
    assert "```\na table\n```" in text
    assert about("wire").startswith("What each wire format costs")
    assert "python -m" not in about("wire")


def test_an_unknown_name_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["mix", "nonsense"])
    assert "there is no benchmark nonsense; there are mix, wire" in capsys.readouterr().err


def test_what_fails_is_said_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.PRINTED", tmp_path / "printed.json")
    monkeypatch.setattr("benchmarks.__main__.PAGE", tmp_path / "page.md")
    monkeypatch.setitem(MINUTES, "nothing", 1)
    assert main(["nothing"]) == 1
    assert "nothing has failed, with exit code 1" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
