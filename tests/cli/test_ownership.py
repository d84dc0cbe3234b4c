"""What root is told, and refused, where the service is installed; the rest is in the booted machine of tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.cli.ownership import hidden_from_service, start_command
from decaf_node.places import Places, find_places
from decaf_node.settings import Settings
from tests.cli.command import decaf_node

SERVICE = find_places({"HOME": "/x"}, Path("/etc/decaf-node/lab/config.toml"))
OWN = Places(Path("/x/c.toml"), Path("/x/state"), Path("/x/run"))


def settings(model: str, *data: str) -> Settings:
    return Settings.model_validate({"model": {"path": model}, "data": {"train": data}})


@pytest.mark.parametrize("place", ["/home/ada/model", "/root/model", "/tmp/model", "/run/user/1000/model"])
def test_what_the_sandbox_hides_is_named(place: str) -> None:
    assert f"so not {place}: move it" in hidden_from_service(SERVICE, settings(place, "/srv/rows.jsonl"))
    assert f"so not {place}: move it" in hidden_from_service(SERVICE, settings("/srv/model", place))
    assert hidden_from_service(OWN, settings(place, place)) == ""


def test_what_it_does_not_hide_is_not() -> None:
    assert hidden_from_service(SERVICE, settings("/srv/model", "/homely/rows.jsonl", "/data/tmp/rows.jsonl")) == ""


def test_where_it_is_not_installed_the_command_is_as_it_was_given() -> None:
    assert start_command(OWN, None, None) == "decaf-node run"
    given = start_command(OWN, Path("/x/my settings.toml"), Path("state"))
    assert given == "decaf-node run --config '/x/my settings.toml' --state state"


def test_settings_that_cannot_be_read_are_a_matter_of_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()  # nobody can, not even root
    done = decaf_node("run", "--config", tmp_path / "config.toml")
    assert (done.returncode, "[settings.unreadable]" in done.stderr) == (78, True), done
