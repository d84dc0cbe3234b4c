"""Run the four nodes as they run anywhere, each a `decaf-node run`, and watch them until they are done."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from decaf_node.cli.demo.newsrooms import Newsroom
from decaf_node.cli.demo.processes import last_words, start_python, stop_all
from decaf_node.cli.demo.sight import Record, look

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # a node that has been silent for longer is counted as gone

Standing = Literal["starting", "here", "silent", "gone"]


@dataclass
class Node:
    """One node under watch, to the end of ``rounds``. standing: ``gone`` changes back if a person starts it again."""

    newsroom: Newsroom
    rounds: int
    process: subprocess.Popen[str]
    record: Record = field(default_factory=Record)
    standing: Standing = "starting"
    heard: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> bool:
        """It is here, and it is known how good it is after its rounds, or after more."""
        return self.standing == "here" and self.record.measured >= self.rounds

    @property
    def failed(self) -> bool:
        """It has ended with an error before its first round: it would do so again."""
        return self.standing == "gone" and (self.process.returncode or 0) > 0 and not self.record.points

    @property
    def why(self) -> str:
        """Return in brackets what is known of why it is gone."""
        code = self.process.poll()
        if code is None:
            return f" (it has not answered for {PATIENCE_SECONDS:.0f} s)"
        if code < 0:
            return f" (killed by {signal.Signals(-code).name})"
        return f" ({last_words(self.newsroom.log, code).message.rstrip('.')})"

    def restart_command(self) -> str:
        """Return what to type to start this node again."""
        program = "decaf-node" if shutil.which("decaf-node") else f"{sys.executable} -m decaf_node.cli.main"
        return f"{program} run {shlex.join(_place_options(self.newsroom))}"


def start(room: Newsroom, rounds: int) -> Node:
    """Start a node: a process of its own, which starts a trainer process of its own."""
    return Node(room, rounds, start_python(["-m", "decaf_node.cli.main", "run", *_place_options(room)], room.log))


def watch(nodes: Sequence[Node], show: Callable[[Sequence[Node]], None]) -> None:
    """Look at the nodes until each is done or gone, and ``show`` them each time; they go on until then.

    Raises the error of the first node, if all are gone before one was done.
    """
    with ThreadPoolExecutor(len(nodes)) as pool:
        while True:
            list(pool.map(_look, nodes))
            if all(node.standing == "gone" for node in nodes):
                raise last_words(nodes[0].newsroom.log, nodes[0].process.returncode)
            show(nodes)
            if all(node.done or node.standing == "gone" for node in nodes):
                return
            time.sleep(POLL_SECONDS)


def stop(nodes: Sequence[Node]) -> None:
    """End all nodes, those that a person has started again too."""
    stop_all([node.process for node in nodes], [node.newsroom.places.control_socket for node in nodes])


def _look(node: Node) -> None:
    sight = look(node.newsroom.places.control_socket)
    node.record.add(sight)
    now = time.monotonic()
    if sight.reach == "here":
        node.heard, node.standing = now, "here"
    elif sight.reach == "absent" and node.process.poll() is not None:
        node.standing = "gone"
    elif node.standing != "starting":
        node.standing = "gone" if now - node.heard > PATIENCE_SECONDS else "silent"


def _place_options(room: Newsroom) -> list[str]:
    places = room.places
    return ["--config", str(places.config), "--state", str(places.state), "--runtime", str(places.runtime)]
