"""A member that lies, among four that do not: real daemons with certificates, on loopback."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from decaf_node.daemon.reports import PeerReport
from decaf_node.errors import DaemonUnreachable, TryAgain
from tests.daemon.processes import Daemon, mesh, until

pytestmark = pytest.mark.e2e

TARGET = 10.0
LEARNS = {"target": TARGET, "rate": 0.3}
MEETINGS = 5  # edges that an honest node mixes with the liar, where it does


def value(daemon: Daemon) -> float:
    """Return what the node has learned, as of its last saved round."""
    folder = daemon.until(lambda status: status.saved_round > 0).adapter_folder
    return float(json.loads(Path(folder, "value.json").read_text())["value"])


def seen_by(daemon: Daemon, name: str) -> PeerReport | None:
    """Return what the daemon knows of that member; None where it does not, or does not answer yet."""
    with contextlib.suppress(DaemonUnreachable, TryAgain), daemon.client() as client:
        return next((peer for peer in client.peers() if peer.name == name), None)
    return None


LIES = ("sign-flip", "noise", "zero", "drift", "old-round", "alternating")
WRONG = {"target": -TARGET, "rate": 0.3}  # it trains on labels that are flipped, and follows the protocol


def clipped(daemon: Daemon, name: str) -> bool:
    """Say whether the daemon mixes with that member, and lets it pull by less than half."""
    liar = seen_by(daemon, name)
    return liar is not None and liar.mixes >= MEETINGS and liar.clip_factor is not None and liar.clip_factor < 0.5


@pytest.mark.parametrize("script", [*({**LEARNS, "lie": lie} for lie in LIES), WRONG], ids=[*LIES, "flipped-labels"])
def test_a_liar_moves_the_honest_by_a_little_and_everyone_sees_its_clip_factor(script: dict[str, Any]) -> None:
    with mesh() as make:
        first = make("a", script=LEARNS).start()
        honest = [first, *(make(name, first, script=LEARNS).start() for name in "bcd")]
        make("liar", first, script=script).start()
        waiting = {daemon.name: daemon for daemon in honest}  # each sees it in its own time: some lie every other round

        def seen_through() -> bool:
            for daemon in [daemon for daemon in waiting.values() if clipped(daemon, "liar")]:
                del waiting[daemon.name]
            return not waiting and all(abs(value(daemon) - TARGET) < 1.0 for daemon in honest)

        until(seen_through, patience=120.0)


def test_two_colluders_in_ten_move_the_honest_by_a_little() -> None:
    everyone = {"topology": "full"}  # ten are otherwise no full graph any more
    with mesh() as make:
        first = make("a", script=LEARNS, mesh=everyone).start()
        honest = [first, *(make(name, first, script=LEARNS, mesh=everyone).start() for name in "bcdefgh")]
        for name in ("liar-1", "liar-2"):
            make(name, first, script={**LEARNS, "lie": "drift"}, mesh=everyone).start()

        def seen_through() -> bool:
            both = all(clipped(daemon, name) for daemon in honest for name in ("liar-1", "liar-2"))
            return both and all(abs(value(daemon) - TARGET) < 1.0 for daemon in honest)

        until(seen_through, patience=180.0)


def test_a_snapshot_that_is_not_finite_reaches_nobody() -> None:
    with mesh() as make:
        first = make("a", script=LEARNS).start()
        honest = [first, *(make(name, first, script=LEARNS).start() for name in "bcd")]
        make("liar", first, script={**LEARNS, "publish_nan": True}).start()

        def refused(daemon: Daemon) -> bool:
            liar = seen_by(daemon, "liar")
            return liar is not None and "not finite" in liar.problem

        until(lambda: all(refused(daemon) for daemon in honest), patience=120.0)
        mixed = [daemon.until(lambda status: status.mixes >= MEETINGS) for daemon in honest]
        assert len(mixed) == len(honest)
        for daemon in honest:
            liar = seen_by(daemon, "liar")
            assert liar is not None
            assert liar.mixes == 0
