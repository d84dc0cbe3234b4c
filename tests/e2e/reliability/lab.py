"""One fault after another on a mesh of real nodes between hosts of one machine; prints a JSON line for each.

Run as root in a namespace of its own, see ``tests/daemon/network_lab.py``: ``... python -m tests.e2e.reliability.lab``,
with the names of functions for some of them only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.e2e.reliability import cables, crashes, crowds
from tests.e2e.reliability.hosts import hosts
from tests.e2e.reliability.play import Fault, Outcome, play
from tests.e2e.reliability.rooms import NAMES, Mesh
from tests.e2e.reliability.witness import seen_by_avahi

WITNESS = "w"
UNDISTURBED = "a"  # the node that no fault ends
LEARNT = 20  # rounds, after which there is something to lose

# in this order: some leave a node where the next needs it, and the last ends them all
FAULTS: tuple[Fault, ...] = (
    crashes.kills,
    crashes.trainer_killed,
    crashes.stopped,
    crashes.power_cut,
    crashes.disk_full,
    cables.partition,
    cables.one_way,
    cables.bad_links,
    cables.another_address,
    crashes.left,
    crashes.clock_ahead,
    cables.later_interface,
    cables.no_multicast,
    cables.two_subnets,
    crashes.rolling_restart,
)


@contextmanager
def furnished() -> Iterator[Mesh]:
    ports = *NAMES, WITNESS, cables.ROUTER, cables.ROUTER_THERE
    with hosts(*ports) as network, tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:
        mesh = Mesh(Path(folder), network)
        for name in (*NAMES, WITNESS):
            network.plug_in(name)
        crashes.furnish(mesh)
        try:
            yield mesh
        finally:
            for room in mesh.rooms.values():
                room.end()
            crashes.unfurnish(mesh)


def start_together(mesh: Mesh) -> Outcome:
    since, loading = mesh.start(NAMES)
    seconds = mesh.mixed_again(since)
    seen: dict[str, str] = {}
    while mesh.ids.values() - seen.keys():
        assert time.time() < since + 120.0, f"avahi sees {seen}"
        seen = seen_by_avahi(WITNESS)
    assert seen == {mesh.ids[name]: mesh.hosts.address(name) for name in NAMES}
    return Outcome("five nodes start at once", "they found each other by mDNS; avahi saw all five", seconds, 0, loading)


def tell(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def on_real_nodes(faults: Sequence[Fault]) -> None:
    with furnished() as mesh:
        tell(asdict(start_together(mesh)))
        mesh.rounds_go_by(LEARNT)
        one = mesh.rooms[UNDISTURBED]
        begun, early = one.status(), crowds.uses_of(one)
        for fault in faults:
            if fault is crashes.rolling_restart:
                now, late = one.status(), crowds.uses_of(one)
                assert now.instance == begun.instance
                tell(crowds.held("all faults", (begun.round, now.round), early, late))
            for row in play(fault, mesh):
                tell(row)


def on_others() -> None:
    with hosts(*crowds.TWELVE) as network:
        for name in crowds.TWELVE:
            network.plug_in(name)
        tell(asdict(crowds.twelve_at_once(network)))
        tell(crowds.a_week(network))


def main() -> None:
    wanted = sys.argv[1:]
    on_real_nodes([fault for fault in FAULTS if not wanted or fault.__name__ in wanted])
    if not wanted:
        on_others()


if __name__ == "__main__":
    main()
