"""docs/security.md names a test for each answer: all of them must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.daemon.network_lab import SCENARIOS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
FILES = tuple((ROOT / "tests").rglob("test_*.py"))
FUNCTIONS = {
    name for path in FILES for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
}
NAMED = sorted(set(re.findall(r"\btest_\w+(?:\.py|\.\.\.)?", PAGE)))


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_page_names_is_there(name: str) -> None:
    if name.endswith("..."):
        assert any(function.startswith(name.removesuffix("...")) for function in FUNCTIONS)
    else:
        assert name in {path.name for path in FILES} or name in FUNCTIONS


def test_the_network_lab_is_named_whole() -> None:
    assert {name for name in SCENARIOS if f"`{name}`" in PAGE} == set(SCENARIOS)


def test_every_row_of_the_table_has_a_test() -> None:
    table = PAGE.split("## Against whom")[1].split("##")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| who |")]
    assert len(rows) > 30
    for row in rows:
        shown = row.rstrip("| ").rpartition("|")[2]
        assert any(word in shown for word in ("test_", "network lab", "run_scripted.py", "tests/fuzz")), row
