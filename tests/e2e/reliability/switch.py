"""An Ethernet switch in user space, whose links can be slow, thin, lossy or cut: ``python -m ... PORT PORT ...``.

Each port is a TAP device of that name, made here; whoever wants it moves it to a host. A line of JSON on standard input
says how the network is from then on, see ``Network``; a line of output follows when it is so.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import os
import random
import selectors
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 65536
QUEUE_SECONDS = 0.5  # of a thin link: what would wait for longer is dropped
FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Link:
    """What becomes of the frames that a port sends. loss: share of them; rate: bytes a second, 0 being any.

    delay, jitter: seconds, evenly spread; frames stay in their order. multicast: is passed on.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    multicast: bool = True


@dataclass(frozen=True)
class Network:
    """links, segments: by port, where not as usual; ports of different segments do not hear each other.

    cuts: (from, to) pairs of ports between which nothing passes.
    """

    links: dict[str, Link] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)
    cuts: tuple[tuple[str, str], ...] = ()

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def read_network(line: str) -> Network:
    document: dict[str, Any] = json.loads(line)
    links = {port: Link(**link) for port, link in document["links"].items()}
    return Network(links, document["segments"], tuple((one, other) for one, other in document["cuts"]))


class Switch:
    def __init__(self, ports: list[str]) -> None:
        self._taps = {port: open_tap(port) for port in ports}
        self._network = Network()
        self._homes: dict[bytes, str] = {}
        self._free_at = dict.fromkeys(ports, 0.0)
        self._last_at = dict.fromkeys(ports, 0.0)
        self._queue: list[tuple[float, int, str, bytes]] = []
        self._order = itertools.count()
        self._draw = random.Random(20)

    def run(self) -> None:
        """Pass frames on until the end of standard input."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(sys.stdin, selectors.EVENT_READ)
            for port, tap in self._taps.items():
                waiting.register(tap, selectors.EVENT_READ, port)
            while True:
                for key, _ in waiting.select(self._until_next()):
                    if key.data is not None:
                        self._take(key.data)
                    elif line := sys.stdin.readline():
                        self._network = read_network(line)
                        print("so it is", flush=True)
                    else:
                        return
                self._pass_on(time.monotonic())

    def _until_next(self) -> float | None:
        return max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None

    def _take(self, port: str) -> None:
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(self._taps[port], FRAME_BYTES)
            except OSError:  # nothing more, or the interface is down
                return
            self._homes[frame[6:12]] = port
            at = self._arrival(port, frame, time.monotonic())
            if at is not None:
                heapq.heappush(self._queue, (at, next(self._order), port, frame))

    def _arrival(self, port: str, frame: bytes, now: float) -> float | None:
        """Return when the frame comes out at the other end; None if never."""
        link = self._network.links.get(port, Link())
        if self._draw.random() < link.loss or (_is_group(frame) and not _is_broadcast(frame) and not link.multicast):
            return None
        begins = max(now, self._free_at[port])
        if link.rate:
            if begins - now > QUEUE_SECONDS:
                return None
            begins += len(frame) / link.rate
            self._free_at[port] = begins
        arrives = begins + link.delay + self._draw.uniform(-link.jitter, link.jitter)
        self._last_at[port] = max(arrives, self._last_at[port])
        return self._last_at[port]

    def _pass_on(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            _, _, port, frame = heapq.heappop(self._queue)
            for other in self._receivers(port, frame):
                with contextlib.suppress(OSError):  # the interface is down: as if no cable were in it
                    os.write(self._taps[other], frame)

    def _receivers(self, port: str, frame: bytes) -> Iterator[str]:
        home = None if _is_group(frame) else self._homes.get(frame[:6])
        segments = self._network.segments
        for other in self._taps if home is None else (home,):
            joined = segments.get(port, "") == segments.get(other, "")
            if other != port and joined and (port, other) not in self._network.cuts and self._hears(other, frame):
                yield other

    def _hears(self, port: str, frame: bytes) -> bool:
        link = self._network.links.get(port, Link())
        return link.multicast or not _is_group(frame) or _is_broadcast(frame)


def _is_group(frame: bytes) -> bool:
    return bool(frame[0] & 1)


def _is_broadcast(frame: bytes) -> bool:
    return frame[:6] == b"\xff" * 6


def open_tap(name: str) -> int:
    """Make a TAP device; it lives as long as it is open."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22s", name.encode(), IFF_TAP | IFF_NO_PI, b""))
    return tap


if __name__ == "__main__":
    switch = Switch(sys.argv[1:])
    print("the ports are there", flush=True)
    switch.run()
