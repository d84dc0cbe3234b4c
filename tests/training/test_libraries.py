"""What a daemon's environment may lack, and what is said of it."""

from __future__ import annotations

import sys
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from decaf_node.errors import BadSettings
from decaf_node.training.libraries import NEEDED, demand_libraries


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_where_they_are_nothing_is_said() -> None:
    demand_libraries()


def test_they_are_those_of_the_extra() -> None:
    wanted = map(Requirement, requires("decaf-node") or ())
    extra = {one.name for one in wanted if one.marker is not None and one.marker.evaluate({"extra": "train"})}
    pillow = {"pillow"}  # matplotlib brings it everywhere
    assert extra - pillow - {"tomli"} == {*NEEDED}


def test_those_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "peft", "torch")
    with pytest.raises(BadSettings) as caught:
        demand_libraries("; or not")
    assert str(caught.value) == (
        f"To train takes peft, torch, which {sys.executable} does not find: "
        f'run {sys.executable} -m pip install "decaf-node[train]"; or not. [training.no-libraries]'
    )


def test_of_torch_alone_pip_may_bring_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "torch")
    with pytest.raises(BadSettings, match="install a torch for this device"):
        demand_libraries()
