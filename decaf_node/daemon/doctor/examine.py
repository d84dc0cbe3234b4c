"""The whole examination: every layer is looked at, and what follows from something lower is said to follow from it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ifaddr

from decaf_node.daemon.addresses import split
from decaf_node.daemon.clock import EARLIEST
from decaf_node.daemon.doctor.clock import look_at_clock, newest_stamp
from decaf_node.daemon.doctor.company import Own, judge_visits
from decaf_node.daemon.doctor.configured import look_at_settings
from decaf_node.daemon.doctor.disk import look_at_disks
from decaf_node.daemon.doctor.files import Kept, look_at_files, look_at_history
from decaf_node.daemon.doctor.finding import (
    EVERYTHING,
    LAYERS,
    Finding,
    failed,
    failure,
    first_failure,
    in_order,
    unseen,
    warning,
)
from decaf_node.daemon.doctor.identity import Shown, look_at_identity
from decaf_node.daemon.doctor.machine import Machine, look_at_machine
from decaf_node.daemon.doctor.network import Probe, judge_multicast, look_at_interfaces, not_looked_for, probe
from decaf_node.daemon.doctor.peers import PEERS_AT_MOST, Known, Visit, Visits, leads_here, merged
from decaf_node.daemon.doctor.remedies import with_remedies
from decaf_node.daemon.doctor.running import Said, ask_daemon, look_at_daemon
from decaf_node.daemon.interfaces import own_ips
from decaf_node.daemon.lan import Heard, listen_around
from decaf_node.daemon.security import only_new_tls
from decaf_node.daemon.seeds import read_seeds
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadSettings, DecafError
from decaf_node.places import Places
from decaf_node.settings import SecuritySection, Settings

NEED_SETTINGS = LAYERS[LAYERS.index("machine") :]
BEFORE_THE_DAEMON = LAYERS[: LAYERS.index("daemon")]
# A failure of this reason follows from one in these layers, or of these reasons.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "certificate.expired": ("clock",),
    "certificate.not-yet-valid": ("clock",),
    "daemon.not-running": BEFORE_THE_DAEMON,
    "trainer.failing": ("machine", "model", "data"),
    "multicast.nobody-heard": ("network.no-link", "multicast.no-flag"),
    "peer.certificate-expired": ("clock",),
    "peer.certificate-not-yet-valid": ("clock",),
    "peer.host-down": ("network.no-link",),
    "peer.no-route": ("network.no-link", "discovery.no-interface"),
}


@dataclass(frozen=True)
class Examination:
    """findings: in order of their layers; said: what the daemon has answered."""

    findings: tuple[Finding, ...]
    said: Said
    settings: Settings | None

    @property
    def cause(self) -> Finding | None:
        """The first failure: from the lowest layer; what fails above may follow from it."""
        return first_failure(self.findings)

    @property
    def exit_code(self) -> int:
        """That of the cause; 0 if nothing fails."""
        return self.cause.exit_code if self.cause is not None else 0


async def examine(places: Places, environ: Mapping[str, str]) -> Examination:
    """Look at everything. Nothing is changed, here or there, and it ends within about two minutes."""
    only_new_tls()
    settings, findings = look_at_settings(places, environ)
    said = await asyncio.to_thread(ask_daemon, places.control_socket)
    findings += look_at_files(places)
    reachable = failed(findings, "files") != "files.other-user"
    kept = Kept()
    if reachable and said.state is None:
        kept, about_history = look_at_history(places.state)
        findings += about_history
    shown, about_identity = _identity(places, settings, kept, said, reachable)
    findings += [*about_identity, *look_at_disks(places)]
    if settings is None:
        findings += [unseen(layer, EVERYTHING, "the settings cannot be read") for layer in NEED_SETTINGS]
        visits: list[Visit] = []
    else:
        findings += look_at_daemon(said, places, settings)
        machine, (visits, about_others) = await asyncio.gather(
            look_at_machine(settings, places), _others(places, settings, shown, said, reachable)
        )
        findings += [*machine.findings, *about_others, *_peers(visits, _own(said, kept, machine), said, settings)]
    findings += _clock(places, visits)
    return Examination(in_order(with_remedies(_following(findings), places)), said, settings)


def _identity(
    places: Places, settings: Settings | None, kept: Kept, said: Said, reachable: bool
) -> tuple[Shown, list[Finding]]:
    if not reachable:
        return Shown(), [unseen("identity", "key", "the state folder is another user's")]
    if time.time() < EARLIEST:
        return Shown(), [unseen("identity", "certificate", "without a clock its dates mean nothing")]
    section = settings.security if settings is not None else SecuritySection()
    return look_at_identity(places.state / "identity", section, time.time(), kept.node, said.state is not None)


async def _others(
    places: Places, settings: Settings, shown: Shown, said: Said, reachable: bool
) -> tuple[list[Visit], list[Finding]]:
    """Listen for the others and visit them; return how that went, and what was found of the network."""
    heard: list[Heard] = []
    probes: list[Probe] = []
    if settings.discovery.mdns:
        speaking, findings = look_at_interfaces(settings, ifaddr.get_adapters())
        if speaking:
            probes, heard = await asyncio.gather(probe(speaking), listen_around(settings.discovery))
        else:
            findings.append(not_looked_for("there is no interface for it"))
    else:
        findings = [not_looked_for("discovery.mdns is off in the settings")]
    known = await _known(places if reachable else None, settings, shown, said, heard)
    if len(known) > PEERS_AT_MOST:
        findings.append(unseen("peers", "members", f"{len(known) - PEERS_AT_MOST} more are known"))
    claims = _claims(heard, shown)
    visitor = Visits(_introduction(settings, shown), shown, said.state.status.instance if said.state else "")
    everywhere = await visitor.all([*claims, *known[:PEERS_AT_MOST]])
    visits = [visit for visit in everywhere if visit.peer not in claims]
    reached = {visit.address: visit.peer.title for visit in visits if visit.reached}
    findings += judge_multicast(probes, heard, settings.mesh.name, shown.node, reached, len(known))
    return visits, findings + [_same_identity(visit) for visit in everywhere if visit.peer in claims]


async def _known(
    places: Places | None, settings: Settings, shown: Shown, said: Said, heard: Sequence[Heard]
) -> list[Known]:
    """Return all members that are known from somewhere, without this node."""
    peers = sorted(said.state.peers, key=lambda peer: peer.state == "gone") if said.state else []
    told = [Known(peer.node, peer.name, peer.addresses) for peer in peers]
    told += [Known(each.node, "", each.addresses) for each in heard if each.mesh == settings.mesh.name]
    listens = split(said.state.status.address) if said.state else None
    loose = (*settings.mesh.peers, *(_seeds(places.state) if places else ()))
    named = [address for address in loose if split(address) is not None]  # what is none is said of the settings
    port = listens[1] if listens else settings.listen.port
    here = await asyncio.gather(*(leads_here(address, port) for address in named))
    return merged(told, (address for address, is_own in zip(named, here, strict=True) if not is_own), shown.node)


def _seeds(state: Path) -> tuple[str, ...]:
    try:
        return read_seeds(state / "members")
    except DecafError:
        return ()  # whether the folder can be read is looked at elsewhere


def _introduction(settings: Settings, shown: Shown) -> Introduction:
    return Introduction(shown.node, settings.node.name or socket.gethostname(), settings.mesh.name, "", 0, "")


def _claims(heard: Sequence[Heard], shown: Shown) -> list[Known]:
    """Return who announces this node's ID at addresses that are none of this machine: anybody can, so he is visited."""
    own = own_ips()
    claims = []
    for each in heard:
        hosts = {address: (split(address) or ("", 0))[0].partition("%")[0] for address in each.addresses}
        elsewhere = tuple(address for address, host in hosts.items() if host not in own)
        if each.node == shown.node and elsewhere:
            claims.append(Known("", "", elsewhere))
    return claims


def _same_identity(visit: Visit) -> Finding:
    """Judge who announces this node's ID: his certificate proves it, or nothing does."""
    if visit.error is not None and visit.error.reason == "identity.cloned":
        return failure("identity", visit.address, visit.error)
    words = f"Somebody at {visit.address} announces this node's ID by mDNS, as anybody can, and does not prove it."
    return warning("identity", "key", "identity.announced-elsewhere", words)


def _own(said: Said, kept: Kept, machine: Machine) -> Own:
    if said.state is None:
        return Own(kept.schema, machine.base or kept.base, 0)
    return Own(said.state.status.schema, machine.base, said.state.status.round)


def _peers(visits: Sequence[Visit], own: Own, said: Said, settings: Settings) -> list[Finding]:
    problems = {each.place: each.sentence for each in said.state.problems} if said.state is not None else {}
    if visits:
        return judge_visits(visits, own, problems)
    if not settings.discovery.mdns:
        nobody = "discovery.mdns is off and mesh.peers names no other node, so none is ever looked for."
        return [failure("peers", "members", BadSettings("peer.none-named", nobody))]
    return [unseen("peers", "members", "none is known from mesh.peers, the invitation or mDNS")]


def _clock(places: Places, visits: Sequence[Visit]) -> list[Finding]:
    ahead = [visit.ahead for visit in visits if visit.ahead is not None]
    expired = next((visit.address for visit in visits if visit.out_of_date == "expired"), "")
    return look_at_clock(time.time(), newest_stamp(places.state), ahead, expired)


def _following(findings: Sequence[Finding]) -> list[Finding]:
    """Turn failures that follow from lower ones into what was not looked at."""
    return [_followed(finding, findings) for finding in dict.fromkeys(findings)]


def _followed(finding: Finding, findings: Sequence[Finding]) -> Finding:
    causes = FOLLOWS.get(finding.reason, ()) if finding.mark == "failure" else ()
    for cause in in_order(findings):
        if cause.mark == "failure" and cause is not finding and (cause.layer in causes or cause.reason in causes):
            return unseen(finding.layer, finding.subject, f"{finding.reason} follows from {cause.reason}")
    return finding
