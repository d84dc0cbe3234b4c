"""The doctor against broken set-ups, made between hosts on one machine: it names the right cause first.

As root, with unshare, ip, nft and libfaketime. The set-ups are in ``tests/daemon/doctor_lab.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import doctor_lab
from tests.daemon.network_lab import ALONE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"

# set-up -> the first failure, and the exit code
CAUSES = {
    "nothing": ("", 0),
    # settings, files, clock, identity, disk
    "an_unknown_key": ("settings.unknown-key", 78),
    "a_state_folder_that_is_read_only": ("disk.forbidden", 77),
    "a_clock_in_1970": ("clock.not-set", 75),
    "a_clock_that_has_gone_back": ("clock.behind", 75),
    "a_clock_that_is_ahead": ("clock.ahead", 75),
    "a_key_that_others_can_read": ("identity.too-open", 77),
    "a_certificate_that_has_expired": ("certificate.expired", 77),
    "the_identity_of_a_node_that_runs": ("identity.cloned", 77),
    "a_second_device_with_this_identity": ("identity.cloned", 77),
    "a_disk_that_is_full": ("disk.full", 75),
    # model and data
    "a_model_that_is_not_there": ("model.missing", 65),
    "a_model_that_is_half_copied": ("model.damaged", 65),
    "data_that_is_malformed": ("data.unreadable", 65),
    # the daemon
    "no_daemon_here": ("daemon.not-running", 69),
    "another_runtime_folder": ("daemon.elsewhere", 69),
    "a_port_that_is_taken": ("listen.port-in-use", 75),
    "a_trainer_that_crashes_again_and_again": ("trainer.failing", 75),
    # interfaces and multicast
    "a_bridge_of_containers_only": ("discovery.no-interface", 75),
    "a_cable_here_that_is_pulled": ("network.no-link", 75),
    "a_firewall_here_that_drops_multicast": ("multicast.not-heard", 75),
    "a_network_on_which_nobody_is_heard": ("multicast.nobody-heard", 75),
    "a_network_that_drops_multicast": ("", 0),  # members are known from elsewhere: a warning
    # the members
    "a_cable_there_that_is_pulled": ("peer.host-down", 75),
    "a_firewall_there_that_drops_our_port": ("peer.silent", 75),
    "a_member_whose_daemon_has_ended": ("peer.refused", 75),
    "a_certificate_of_another_mesh": ("peer.other-mesh", 77),
    "a_model_of_another_hash": ("peer.other-model", 78),
    "a_schema_that_cannot_mix": ("peer.other-schema", 78),
}
WARNINGS = {"a_network_that_drops_multicast": "multicast.filtered"}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the doctor says of each set-up."""
    for tool in ("unshare", "ip", "bridge", "nft", "faketime"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    trial = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"namespaces cannot be made here: {trial.stderr.strip()}")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.daemon.doctor_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return {document["set-up"]: document for document in map(json.loads, done.stdout.splitlines())}


def test_every_set_up_is_in_the_table() -> None:
    assert {setup.__name__ for setup in (*doctor_lab.ALONE, *doctor_lab.IN_TURN)} == CAUSES.keys()


def test_the_page_has_the_same_table() -> None:
    rows = re.findall(
        r"^\| ([a-z0-9 ]+) \| (?:`([a-z.-]+)`|nothing fails)(, a warning)? \| (\d+) \|$", PAGE.read_text(), re.M
    )
    told = {name.replace(" ", "_"): ("" if warns else reason, int(code)) for name, reason, warns, code in rows}
    assert told == CAUSES


@pytest.mark.parametrize("setup", CAUSES)
def test_the_cause_comes_first(setup: str, told: dict[str, Any]) -> None:
    found = told[setup]
    assert (found["cause"], found["exit_code"]) == CAUSES[setup], json.dumps(found, indent=2)


@pytest.mark.parametrize("setup", CAUSES)
def test_whatever_is_wrong_has_a_sentence_and_a_remedy(setup: str, told: dict[str, Any]) -> None:
    for finding in told[setup]["findings"]:
        assert finding["message"]
        if finding["mark"] in ("failure", "warning"):
            assert finding["reason"], finding
            assert finding["remedy"], finding
            assert "{" not in finding["remedy"], finding


@pytest.mark.parametrize("setup", WARNINGS)
def test_what_does_no_harm_is_a_warning(setup: str, told: dict[str, Any]) -> None:
    warned = [finding["reason"] for finding in told[setup]["findings"] if finding["mark"] == "warning"]
    assert WARNINGS[setup] in warned


def test_what_follows_is_said_to_follow(told: dict[str, Any]) -> None:
    for setup, words in (
        ("a_key_that_others_can_read", "daemon.not-running follows from identity.too-open"),
        ("a_clock_that_is_ahead", "certificate.expired follows from clock.ahead"),
        ("a_model_that_is_not_there", "daemon.not-running follows from model.missing"),
    ):
        unseen = [finding["message"] for finding in told[setup]["findings"] if finding["mark"] == "unseen"]
        assert any(words in message for message in unseen), (setup, unseen)
