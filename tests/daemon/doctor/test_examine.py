"""The whole examination, of a node that has been set up and does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.daemon.doctor import examine as examining
from decaf_node.daemon.doctor.examine import Examination, _claims, _same_identity, examine
from decaf_node.daemon.doctor.identity import Shown
from decaf_node.daemon.doctor.machine import Machine
from decaf_node.daemon.doctor.peers import Known, Visit, Visits
from decaf_node.daemon.doctor.remedies import REMEDIES
from decaf_node.daemon.lan import Heard
from decaf_node.daemon.security import MutualTls
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import NotAllowed, TryAgain
from decaf_node.places import Places
from decaf_node.settings import Settings
from tests.daemon.test_tls import member
from tests.daemon.trusted import Authority

LAB = Authority("lab")
ME, OTHER = "A" * 52, "B" * 52


async def examined(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> Examination:
    """Examine a member with these settings; torch is looked at elsewhere."""

    async def no_machine(_settings: Settings, _places: Places) -> Machine:
        return Machine()

    monkeypatch.setattr(examining, "look_at_machine", no_machine)
    places = Places(folder / "c.toml", folder / "state", folder / "run")
    places.config.write_text(f"[model]\npath = '/none'\n[data]\ntrain = ['/none']\n{more}")
    return await examine(places, {})


async def test_a_bad_address_is_said_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAB.admit(tmp_path / "state")
    more = "[discovery]\nmdns = false\n[mesh]\npeers = ['nowhere', 'localhost:7999']\n[listen]\nport = 7999\n"
    found = await examined(tmp_path, monkeypatch, more)
    assert found.cause is not None
    assert found.cause.reason == "settings.bad-peer"
    assert [(each.layer, each.reason) for each in found.findings if each.layer == "peers"] == [
        ("peers", "peer.none-named")
    ]


def test_whoever_announces_our_id_is_visited_where_he_is_not_this_machine() -> None:
    heard = [
        Heard(ME, "lab", ("127.0.0.1:1", "192.0.2.9:1")),
        Heard(ME, "lab", ("127.0.0.1:1",)),
        Heard(OTHER, "lab", ()),
    ]
    assert _claims(heard, Shown(ME)) == [Known("", "", ("192.0.2.9:1",))]


def test_only_a_certificate_proves_a_clone() -> None:
    claim = Known("", "", ("192.0.2.9:1",))
    silent = _same_identity(Visit(claim, "192.0.2.9:1", TryAgain("peer.silent", "It is silent.")))
    proved = _same_identity(Visit(claim, "192.0.2.9:1", NotAllowed("identity.cloned", "It has it.")))
    assert (silent.mark, silent.reason) == ("warning", "identity.announced-elsewhere")
    assert "rm " not in REMEDIES[silent.reason], "anybody can announce anything"
    assert (proved.mark, proved.reason) == ("failure", "identity.cloned")


async def test_a_copy_that_is_announced_and_runs_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers = LAB.papers()
    shown = Shown(papers.node, MutualTls(papers, None), papers.authorities)
    monkeypatch.setattr(examining, "own_ips", frozenset)  # where it runs is another machine
    async with member(tmp_path, papers) as there:
        claims = _claims([Heard(papers.node, "lab", (there.me.address,))], shown)
        [visit] = await Visits(Introduction(papers.node, "doctor", "lab", "", 0, ""), shown).all(claims)
    assert _same_identity(visit).reason == "identity.cloned"
