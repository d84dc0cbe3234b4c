"""Who learns of whom: multicast on one LAN with its faults, or a few static addresses where the mesh is larger."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from decaf_node.mesh.events import PeerLeft

if TYPE_CHECKING:
    from decaf_node.sim.host import Host
    from decaf_node.sim.world import World

LAN_AT_MOST = 32  # nodes; larger meshes are entered by static addresses
REFRESH = 60.0  # seconds between two looks at who is listed
STATIC = 2  # addresses in the settings of a node of a large mesh
GOODBYES_AT_MOST = 32  # as the daemon says
STATIC_AGAIN = 30.0  # seconds until a static address is tried again


class Discovery:
    """listed: what mDNS shows to each device, stale entries among them; deaf: ordered pairs that never hear."""

    def __init__(self, world: World, random: Random) -> None:
        self.deaf: set[tuple[str, str]] = set()
        self.stale: set[str] = set()
        self._world = world
        self._random = random
        self._lan = world.plan.nodes <= LAN_AT_MOST
        self._static: dict[str, tuple[str, ...]] = {}
        self._listed: dict[str, set[str]] = {}

    def settle(self, hosts: list[Host]) -> None:
        """Draw whom each device can hear, or which addresses it is given: of nodes before it, so all hang together."""
        share = self._world.plan.faults.one_sided
        for place, host in enumerate(hosts):
            if self._lan:
                others = [other.device for other in hosts if other is not host]
                self.deaf |= {(host.device, other) for other in others if self._random.random() < share}
            else:
                earlier = [other.name for other in hosts[:place]]
                self._static[host.device] = tuple(sorted(self._random.sample(earlier, min(STATIC, place))))
        self.deaf -= {(other, one) for one, other in self.deaf if one < other}  # one side always hears

    def clone(self, host: Host, twin: Host) -> None:
        """A device has the settings of another too."""
        self._static[twin.device] = self._static.get(host.device, ())

    def announce(self, host: Host) -> None:
        """A device has started: the others of its LAN hear of it, and it hears of them."""
        if not self._lan:
            host.later(0.1, self._try_static, host)
            return
        for other in self._world.hosts:
            if other is not host and other.up:
                self._hears_of(other, host)
                self._hears_of(host, other)
        host.later(REFRESH, self._refresh, host)

    def goodbye(self, host: Host) -> None:
        """A device leaves: those that hear it know at once, its neighbours first, and tell the others."""
        told = {*[*host.node.edges.candidates(host.clock()), *sorted(host.known)][:GOODBYES_AT_MOST]}
        for other in self._world.hosts:
            if other.up and other is not host and other.name in told and self._world.network.linked(host, other):
                other.later(self._random.uniform(0.0, 0.2), other.post, PeerLeft(host.name))
                if other.device not in self.stale:
                    self._listed.get(other.device, set()).discard(host.name)

    def _hears_of(self, host: Host, other: Host) -> None:
        if (host.device, other.device) in self.deaf or not self._world.network.linked(host, other):
            return
        if host.name != other.name:
            late = 20.0 if self._random.random() < self._world.plan.faults.one_sided else 1.5
            self._listed.setdefault(host.device, set()).add(other.name)
            host.later(self._random.uniform(0.1, late), self._world.network.discover, host, other.name)

    def _refresh(self, host: Host) -> None:
        """Look again: whoever is there now, and whatever is listed still."""
        for other in self._world.hosts:
            if other is not host and other.up:
                self._hears_of(host, other)
        if host.device in self.stale:
            for name in sorted(self._listed.get(host.device, ())):
                self._world.network.discover(host, name)
        host.later(REFRESH, self._refresh, host)

    def _try_static(self, host: Host) -> None:
        now = host.clock()
        for name in self._static[host.device]:
            member = host.node.members.get(name)
            if member is None or not host.node.members.is_here(member, now):
                self._world.network.discover(host, name)
        host.later(STATIC_AGAIN, self._try_static, host)
