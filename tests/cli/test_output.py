"""What programs read is always JSON."""

from __future__ import annotations

import json

import pytest

from decaf_node.cli.output import print_json


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "edges": ({"distance": float("inf")},), "name": "ü"})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "edges": [{"distance": None}], "name": "ü"}
