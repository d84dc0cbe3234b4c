from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = {
    "in the test": "import pytest\ndef test_it(): pytest.skip('no tool')",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason='no tool')\ndef test_it(): pass",
    "in a fixture": "import pytest\n@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test_it(tool): pass",
    "the whole module": "import pytest\npytest.importorskip('no_tool')",
}


def outcome(folder: Path, source: str, ci: str) -> tuple[int, str]:
    """Run pytest on ``source`` under our conftest; return its exit code and what it said."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={folder}", str(folder)]
    done = subprocess.run(command, env={**os.environ, "CI": ci}, capture_output=True, text=True, cwd=folder, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("source", SKIPPING.values(), ids=SKIPPING)
def test_a_skip_is_a_failure_on_ci_and_nowhere_else(tmp_path: Path, source: str) -> None:
    code, said = outcome(tmp_path, source, ci="true")
    assert code != 0
    assert re.search(r"was skipped, and on CI nothing may be: .*no.tool", said, re.DOTALL)
    code, said = outcome(tmp_path, source, ci="")
    assert "1 skipped" in said
    assert "fail" not in said


@pytest.mark.slow
def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    assert outcome(tmp_path, "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False", ci="true")[0] == 0
