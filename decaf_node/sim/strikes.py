"""Faults that strike one device at a moment, drawn from the seed before the run begins."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from decaf_node.mesh import events as ev
from decaf_node.sim.plan import DAY

if TYPE_CHECKING:
    from decaf_node.sim.host import Host
    from decaf_node.sim.world import World

HOUR = 3600.0
LONGEST = 4.0  # rounds that a partition, a full disk, an absence lasts at most


def plan_strikes(world: World, random: Random, until: float) -> None:
    """Put every strike of the run on the agenda."""
    faults = world.plan.faults
    hosts = list(world.hosts)
    if not faults.kinds or len(hosts) < 2:
        return
    expected = faults.strikes * len(hosts) * until / HOUR
    for _ in range(int(expected) + (random.random() < expected % 1.0)):
        host, other = random.sample(hosts, 2)
        kind, time = random.choice(faults.kinds), random.uniform(0.02, 1.0) * until
        length = random.uniform(0.05, LONGEST) * world.plan.round_seconds
        world.agenda.at(time, strike, world, kind, host, other, min(length, max(0.0, until - time)))


def strike(world: World, kind: str, host: Host, other: Host, length: float) -> None:
    """Let ``kind`` strike ``host``, for ``length`` seconds where it lasts."""
    world.trace.note(world.now, host.device, f"*** {kind} ({other.device}, {length:.1f} s)")
    world.struck[kind] += 1
    _STRIKES[kind](world, host, other, length)


def _break(world: World, host: Host, other: Host, length: float) -> None:
    if (stream := host.streams.get(other.name)) is not None:
        world.network.sever(stream)


def _partition(world: World, host: Host, other: Host, length: float) -> None:
    world.network.partition(host, other, both_ways=True)
    world.agenda.at(world.now + length, world.network.heal, host, other)


def _one_way(world: World, host: Host, other: Host, length: float) -> None:
    world.network.partition(host, other, both_ways=False)
    world.agenda.at(world.now + length, world.network.heal, host, other)


def _trainer_lost(world: World, host: Host, other: Host, length: float) -> None:
    if not host.frozen:
        host.trainer.lose("killed")


def _out_of_memory(world: World, host: Host, other: Host, length: float) -> None:
    host.trainer.bad.add("out-of-memory")


def _not_finite(world: World, host: Host, other: Host, length: float) -> None:
    host.trainer.bad.add("not-finite")


def _pause(world: World, host: Host, other: Host, length: float) -> None:
    host.post(ev.PauseRequested())
    host.later(length, host.post, ev.ResumeRequested())


def _goodbye(world: World, host: Host, other: Host, length: float) -> None:
    """A goodbye that is none: mDNS lost the peer, which is still there."""
    host.post(ev.PeerLeft(other.name))


def _disk_full(world: World, host: Host, other: Host, length: float) -> None:
    host.disk.full = True
    world.agenda.at(world.now + length, _free_disk, host)


def _free_disk(host: Host) -> None:
    host.disk.full = False


def _kill(world: World, host: Host, other: Host, length: float) -> None:
    host.kill()
    world.agenda.at(world.now + length, host.start)


def _power_cut(world: World, host: Host, other: Host, length: float) -> None:
    if host.up:
        host.lose_power()
    world.agenda.at(world.now + length, host.start)


def _wiped(world: World, host: Host, other: Host, length: float) -> None:
    """Its disk is lost; its identity comes back from a copy."""
    host.kill()
    host.losses.append(world.now)
    host.disk.wipe()
    world.agenda.at(world.now + length, host.start)


def _leave(world: World, host: Host, other: Host, length: float) -> None:
    host.stop()
    world.agenda.at(world.now + length + 10.0, host.start)


def _freeze(world: World, host: Host, other: Host, length: float) -> None:
    host.freeze()
    world.agenda.at(world.now + length, host.thaw)


def _clock_jump(world: World, host: Host, other: Host, length: float) -> None:
    host.wall += world.random.uniform(-400.0, 400.0) * DAY


def _damage(world: World, host: Host, other: Host, length: float) -> None:
    """Flash memory fails: the newest saved round cannot be read any more when the device comes back."""
    host.kill()
    host.disk.damage_newest()
    world.agenda.at(world.now + length, host.start)


def _stale(world: World, host: Host, other: Host, length: float) -> None:
    """Its mDNS lists nodes that are gone, and mDNS of the LAN never says so."""
    world.discovery.stale.add(host.device)


def _clone(world: World, host: Host, other: Host, length: float) -> None:
    """Somebody copies its disk into another device and starts that too, for a while."""
    if host.up and not any(twin.name == host.name for twin in world.hosts if twin is not host):
        twin = world.clone(host)
        twin.start()
        world.agenda.at(world.now + length, world.remove, twin, host)


_STRIKES: dict[str, Callable[[World, Host, Host, float], None]] = {
    "break": _break,
    "partition": _partition,
    "one-way": _one_way,
    "trainer-lost": _trainer_lost,
    "out-of-memory": _out_of_memory,
    "not-finite": _not_finite,
    "pause": _pause,
    "goodbye": _goodbye,
    "disk-full": _disk_full,
    "kill": _kill,
    "power-cut": _power_cut,
    "wiped": _wiped,
    "leave": _leave,
    "freeze": _freeze,
    "clock-jump": _clock_jump,
    "damage": _damage,
    "stale": _stale,
    "clone": _clone,
}
