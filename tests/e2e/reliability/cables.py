"""Networks that are cut, lossy, slow or thin, and addresses, interfaces and subnets that change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

from tests.daemon.network_lab import PORT, run, within
from tests.e2e.reliability.hosts import Hosts
from tests.e2e.reliability.play import Outcome
from tests.e2e.reliability.rooms import NAMES, Mesh
from tests.e2e.reliability.switch import Link

ROUNDS_CUT = 8
HALVES = "ab", "cde"
ROUTER, ROUTER_THERE = "r", "s"  # the ports of the router


def partition(mesh: Mesh) -> Iterator[Outcome]:
    one, other = HALVES
    cut = time.time()
    mesh.hosts.cut(one, other)
    mesh.rounds_go_by(ROUNDS_CUT)
    assert not any(mesh.partners(name, cut + 5.0) & {*other} for name in one), "the cut is none"
    since = time.time()
    mesh.hosts.mend()
    seconds = mesh.mixed_again(since)
    apart = distance(mesh)
    mesh.rounds_go_by(3)
    happened = f"each half went on by itself for {ROUNDS_CUT} rounds"
    happened += f"; distance {apart:.2f} when they mixed again, {distance(mesh):.2f} three rounds later"
    yield Outcome("network in two halves", happened, seconds)


def distance(mesh: Mesh) -> float:
    """Return how far the nodes are from their neighbours: the largest of the last rounds."""
    last = (next(iter(mesh.rounds(name)), None) for name in NAMES)
    return max(row.consensus_distance or 0.0 for row in last if row is not None)


def one_way(mesh: Mesh) -> Iterator[Outcome]:
    one, other = HALVES
    mesh.hosts.cut(one, other, both_ways=False)
    mesh.rounds_go_by(ROUNDS_CUT)
    since = time.time()
    mesh.hosts.mend()
    happened = f"two nodes heard the other three, and were not heard for {ROUNDS_CUT} rounds; each side went on"
    yield Outcome("cut in one direction", happened, mesh.mixed_again(since))


def bad_links(mesh: Mesh) -> Iterator[Outcome]:
    """The mesh mixes on while the network is bad; that is what is measured."""
    for fault, link in (
        ("20 % of the packets lost", Link(loss=0.2)),
        ("50 ± 10 ms delay each way", Link(delay=0.05, jitter=0.01)),
        ("1 Mbit/s a node", Link(rate=1e6 / 8)),
    ):
        mesh.hosts.every_link(link)
        since = time.time()
        seconds = mesh.mixed_again(since)
        mesh.hosts.mend()
        mesh.mixed_again(time.time())
        yield Outcome(fault, "the mesh went on mixing while it lasted", seconds)


def another_address(mesh: Mesh) -> Iterator[Outcome]:
    mesh.hosts.down("c")
    mesh.rounds_go_by(5, "a")
    mesh.hosts.up("c", "10.77.0.103")
    since = time.time()
    yield Outcome("link down, up with another address", "the others found it there", mesh.mixed_again(since))


def later_interface(mesh: Mesh) -> Iterator[Outcome]:
    """A node is started on a host without a network; its interface comes up later."""
    assert mesh.rooms["b"].stop() == 0
    run("ip", "-n", "b", "link", "set", "eth0", "netns", str(os.getpid()), "name", "port-b")
    mesh.start("b")
    mesh.rounds_go_by(2, "b")
    since = time.time()
    mesh.hosts.plug_in("b")
    happened = "it trained alone until then"
    yield Outcome("interface comes after the start", happened, mesh.mixed_again(since, "b"))


def no_multicast(mesh: Mesh) -> Iterator[Outcome]:
    """A node that nobody can find knows the address of one other, and has an address that nobody knows."""
    room = mesh.rooms["e"]
    assert room.stop() == 0
    mesh.hosts.set(replace(mesh.hosts.network, links={"e": Link(multicast=False)}))
    mesh.hosts.down("e")
    mesh.hosts.up("e", "10.77.0.105")
    since, loading = start_with_peer(mesh, "e")
    happened = "it knew the address of one member, and had that of the others from it"
    yield Outcome("multicast is dropped", happened, mesh.mixed_again(since, "e"), 0, loading)


def start_with_peer(mesh: Mesh, name: str) -> tuple[float, float]:
    room = mesh.rooms[name]
    room.configure({**room.settings, "mesh": {"peers": [f"{mesh.hosts.address('a')}:{PORT}"]}})
    return mesh.start(name)


def two_subnets(mesh: Mesh) -> Iterator[Outcome]:
    """A node moves behind a router."""
    room = mesh.rooms["e"]
    assert room.stop() == 0
    mesh.hosts.down("e")
    mesh.hosts.set(replace(mesh.hosts.network, links={}, segments={"e": "there", ROUTER_THERE: "there"}))
    mesh.hosts.up("e", "10.78.0.5")
    run("ip", "-n", "e", "route", "add", "default", "via", "10.78.0.254")
    build_router(mesh.hosts)
    for host in NAMES.replace("e", ""):
        run("ip", "-n", host, "route", "add", "10.78.0.0/24", "via", "10.77.0.254")
    since, loading = start_with_peer(mesh, "e")
    happened = "one address was enough here too"
    yield Outcome("two subnets and a router", happened, mesh.mixed_again(since, "e"), 0, loading)


def build_router(hosts: Hosts) -> None:
    run("ip", "link", "set", f"port-{ROUTER_THERE}", "netns", ROUTER, "name", "eth1")
    run("ip", "link", "set", f"port-{ROUTER}", "netns", ROUTER, "name", "eth0")
    for interface, address in (("eth0", "10.77.0.254"), ("eth1", "10.78.0.254")):
        run("ip", "-n", ROUTER, "link", "set", interface, "up")
        run("ip", "-n", ROUTER, "address", "add", f"{address}/24", "dev", interface)
    run(*within(ROUTER), "sysctl", "-qw", "net.ipv4.ip_forward=1")
