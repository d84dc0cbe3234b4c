"""Hosts on one machine: network namespaces on a switch in user space, to be cut, slowed down and mended.

Run as root, in a namespace that holds all of them, see ``tests/daemon/network_lab.py``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.daemon.network_lab import run, within
from tests.daemon.processes import ROOT
from tests.e2e.reliability.switch import Link, Network


class Hosts:
    """Each has one interface, eth0, with the address 10.77.0.N/24."""

    def __init__(self, switch: subprocess.Popen[str], names: tuple[str, ...]) -> None:
        self._switch = switch
        self.network = Network()
        self.numbers = {name: number for number, name in enumerate(names, 1)}

    def address(self, host: str) -> str:
        return f"10.77.0.{self.numbers[host]}"

    def plug_in(self, host: str, address: str = "") -> None:
        """Move the host's port to it, and bring it up."""
        run("ip", "link", "set", _port(host), "netns", host, "name", "eth0")
        self.up(host, address)

    def up(self, host: str, address: str = "") -> None:
        """Bring the interface up, with the usual address or another, and IPv6's of its own."""
        for words in (
            ("link", "set", "eth0", "up"),
            ("address", "add", f"{address or self.address(host)}/24", "dev", "eth0"),
            ("route", "add", "224.0.0.0/4", "dev", "eth0"),
        ):
            run("ip", "-n", host, *words)

    def down(self, host: str) -> None:
        """Take the interface down, and its addresses from it."""
        run("ip", "-n", host, "address", "flush", "dev", "eth0")
        run("ip", "-n", host, "link", "set", "eth0", "down")

    def set(self, network: Network) -> None:
        """From now on the network is so."""
        self.network = network
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        by_port = Network(
            {_port(host): link for host, link in network.links.items()},
            {_port(host): segment for host, segment in network.segments.items()},
            tuple((_port(one), _port(other)) for one, other in network.cuts),
        )
        self._switch.stdin.write(by_port.line())
        self._switch.stdin.flush()
        assert self._switch.stdout.readline(), "the switch has ended"

    def mend(self) -> None:
        self.set(Network(segments=self.network.segments))

    def cut(self, some: str, others: str, both_ways: bool = True) -> None:
        """Let nothing pass from ``some`` hosts to ``others``, each a string of one-letter names."""
        there = [(one, other) for one in some for other in others]
        back = [(other, one) for one, other in there] if both_ways else []
        self.set(replace(self.network, cuts=(*there, *back)))

    def every_link(self, link: Link) -> None:
        self.set(replace(self.network, links=dict.fromkeys(self.numbers, link)))


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Make the hosts, not plugged in yet."""
    run("mount", "-t", "tmpfs", "none", "/run")
    Path("/run/netns").mkdir()
    run("ip", "link", "set", "lo", "up")
    words = [sys.executable, "-m", "tests.e2e.reliability.switch", *map(_port, names)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as switch:
        assert switch.stdout is not None
        assert switch.stdout.readline(), "the switch has not come up"
        for host in names:
            run("ip", "netns", "add", host)
            run("ip", "-n", host, "link", "set", "lo", "up")
            run(*within(host), "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        try:
            yield Hosts(switch, names)
        finally:
            switch.stdin.close()  # type: ignore[union-attr]


def _port(host: str) -> str:
    return f"port-{host}"
