"""A trainer without torch for tests of the daemon: one number is all it learns, and its snapshots are whole files.

It speaks ``link.py``. Its state is one float ``value``; a round moves it by ``drift``; a mix moves it as product space
says, so the sum over a mesh is kept. ``[training.arguments]`` of the settings script it, see ``Script``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node import link
from decaf_node.snapshot import metadata, read_header

BASE = "b" * 64


@dataclass(frozen=True)
class Script:
    """What this trainer does. die_in_round: it is killed by SIGKILL there, once if ``once`` names a file to note it.

    loading: seconds before it is ready; hang_in_round: it is stopped by SIGSTOP there, ``once`` as above

    rate: part of the way to ``target`` that a round goes
    labels: the part of its examples that each has
    lie: what it publishes instead of its value (then it does not mix what it is sent), see ``lies``
    """

    value: float = 0.0
    drift: float = 0.0
    target: float = 0.0
    rate: float = 0.0
    lie: str = ""
    seconds: float = 0.05
    bulk: int = 16
    schema: str = "a" * 64
    base: str = BASE
    parts: str = "scripted"
    task: str = ""
    die_in_round: int = 0
    die_while_mixing: int = 0
    once: str = ""
    refuse: str = ""
    publish_nan: bool = False
    fail: str = ""
    save_bytes: int = 0
    ignore_stop: bool = False
    shout: int = 0
    nothing_held_out: bool = False
    die_when_asked: bool = False
    loading: float = 0.0
    hang_in_round: int = 0
    labels: tuple[float, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(parser.parse_args().socket)
    return Scripted(stream).run()


class Scripted:
    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.buffer = b""
        self.paused = False
        self.round = 0
        self.awaited = False
        self.ended = 0
        self.mesh_labels: tuple[float, ...] = ()

    def run(self) -> int:
        self.send(link.TrainerConnected(os.getpid()))
        welcome = self.receive(None)
        assert isinstance(welcome, link.Welcome)
        self.settings = welcome.settings
        self.spool = Path(welcome.spool)
        self.script = Script(**welcome.settings["training"]["arguments"])
        self.value = self.script.value
        self.first = 0.0  # what it held at the end of its first round
        print("scripted trainer is here")
        if self.script.fail:
            reason, exit_code, fatal = self.script.fail.split()
            self.send(link.TrainerFailed(reason, f"It failed with {reason}.", int(exit_code), fatal == "fatal"))
            return int(exit_code)
        if self.script.shout:
            print("x" * self.script.shout)
        if self.script.loading:  # under a clock that is moved no sleep is too short to fail
            time.sleep(self.script.loading)
        self.send(
            link.TrainerReady(
                self.script.schema,
                self.script.base,
                1,
                4,
                "cpu",
                {"kind": self.script.parts} | ({"task": self.script.task} if self.script.task else {}),
                *self.label_parts(),
            )
        )
        try:
            return self.train()
        except EOFError:
            return 0

    def train(self) -> int:
        limit = self.settings["round"]["limit"]
        due = math.inf
        while True:
            waiting = self.round == 0 or self.awaited or self.paused or 0 < limit < self.round
            if waiting:
                due = math.inf
            elif due == math.inf:
                due = time.monotonic() + self.script.seconds
            if not waiting and self.ended == self.round:
                due = 0.0
            left = None if waiting else max(0.0, due - time.monotonic())
            message = self.receive(left)
            if isinstance(message, link.Stop):
                if not self.script.ignore_stop:
                    return 0
            elif message is not None:
                self.handle(message)
            elif not waiting:
                due = math.inf
                self.publish()

    def publish(self) -> None:
        self.die_if(self.script.die_in_round)
        self.die_if(self.script.hang_in_round, by=signal.SIGSTOP)
        self.value += self.script.drift + self.script.rate * (self.script.target - self.value)
        self.first = self.first or self.value
        self.send(link.Progress(self.round, 3, 1.0 / self.round, 10.0))
        data = snapshot_bytes(self.shown(), self.round, self.script.schema, self.script.bulk)
        file = put(self.spool, data)
        self.awaited = True
        told = (self.round, file, 1, 3, 1.0 / self.round, self.script.seconds)
        self.send(link.RoundTrained(*told, *self.label_parts()))

    def label_parts(self) -> tuple[tuple[float, ...], ...]:
        """Return what is told of labels; nothing where there are none, as to older daemons."""
        return (tuple(self.script.labels),) if self.script.labels else ()

    def shown(self) -> float:
        """Return what this node says that it has learned."""
        if self.script.publish_nan:
            return math.nan
        odd = self.round % 2 == 1
        lies = {
            "": self.value,
            "sign-flip": -self.value,
            "noise": 1e4 if odd else -1e4,
            "zero": 0.0,
            "drift": self.value + 50.0,
            "old-round": self.first,
            "alternating": -self.value if odd else self.value,
        }
        return lies[self.script.lie]

    def handle(self, message: link.Message) -> None:
        match message:
            case link.StartTraining(round, snapshot):
                self.round = round
                if snapshot is not None:
                    self.value = value_of(snapshot)
            case link.InspectSnapshot(snapshot, own):
                self.inspect(snapshot, own)
            case link.MixRound(round, edges):
                self.mesh_labels = getattr(message, "label_parts", ())  # older ones have none
                self.die_if(self.script.die_while_mixing, round)
                if not self.script.lie:
                    self.value += sum(edge.weight * (value_of(edge.theirs) - value_of(edge.own)) for edge in edges)
                self.awaited, self.round = False, max(self.round, round + 1)
                self.send(link.RoundMixed(round, len(edges), 0.0, 0.0, abs(self.value), 0.001))
                if round % self.settings["round"]["evaluate_every"] == 0:
                    self.send(link.Progress(self.round, 0, 0.0, 0.0))  # so the real one says in between that it lives
                    self.send(link.Evaluated(round, abs(self.value), 0.5, 10, 0.001))
            case link.AdoptState(candidates):
                self.value = value_of(candidates[0])
                self.send(link.StateAdopted(self.round, candidates[0].digest))
            case link.SaveState(round, folder):
                self.save(round, Path(folder))
            case link.EndRound(round) if round == self.round:
                self.ended = round
            case link.Evaluate():
                if self.script.die_when_asked:
                    os.kill(os.getpid(), signal.SIGKILL)
                examples = 0 if self.script.nothing_held_out else 10
                self.send(link.EvaluatedNow(self.round - 1, abs(self.value), 0.5, examples, 0.001))
            case link.Pause():
                self.paused = True
            case link.Resume():
                self.paused = False

    def inspect(self, snapshot: link.File, own: link.File) -> None:
        if self.script.refuse:
            self.send(link.SnapshotInspected(snapshot.digest, True, 0.0, 0.0, self.script.refuse))
            return
        theirs = value_of(snapshot)
        finite = math.isfinite(theirs)
        distance = abs(theirs - value_of(own))
        distance = distance if math.isfinite(distance) else 0.0
        self.send(link.SnapshotInspected(snapshot.digest, finite, distance, abs(value_of(own))))

    def save(self, round: int, folder: Path) -> None:
        try:
            padding = b"0" * self.script.save_bytes
            adapter = put(folder, snapshot_bytes(self.value, round, self.script.schema, self.script.bulk))
            trainer = put(folder, json.dumps({"value": self.value}).encode() + padding, ".state")
            export = folder / "export"
            export.mkdir()
            labels = {"labels": self.mesh_labels} if self.script.labels else {}
            (export / "value.json").write_text(json.dumps({"value": self.value, "round": round, **labels}))
        except OSError as error:
            self.send(link.SaveFailed(round, f"{error.strerror}"))
            return
        self.send(link.StateSaved(round, adapter, trainer, str(export)))

    def die_if(self, when: int, now: int | None = None, by: signal.Signals = signal.SIGKILL) -> None:
        if not when or when != (self.round if now is None else now):
            return
        if self.script.once:
            note = Path(self.script.once)
            if note.exists():
                return
            note.touch()
        os.kill(os.getpid(), by)

    def send(self, message: link.Message) -> None:
        try:
            self.stream.sendall(link.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self, timeout: float | None) -> link.Message | None:
        while b"\n" not in self.buffer:
            self.stream.settimeout(timeout if timeout is None else max(timeout, 0.001))
            try:
                block = self.stream.recv(65536)
            except TimeoutError:
                return None
            except ConnectionResetError:
                block = b""
            if not block:
                raise EOFError
            self.buffer += block
        line, _, self.buffer = self.buffer.partition(b"\n")
        return link.decode(line)


def snapshot_bytes(value: float, round: int, schema: str, bulk: int = 16, base: str = BASE) -> bytes:
    """Return a whole snapshot that holds ``value``, with ``bulk`` more bytes (rounded down to whole floats)."""
    count = bulk // 4
    shapes: dict[str, list[int]] = {
        "layer.lora_A.weight": [1, 3],
        "layer.lora_B.weight": [2, 1],
        "value": [1],
        "bulk": [count],
    }
    header: dict[str, Any] = {"__metadata__": metadata(schema, base, round, {"layer": 1.0})}
    position = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    noise = hashlib.shake_128(struct.pack("<d", value)).digest(4 * count)
    data = struct.pack("<6f", 1, 2, 3, 4, 5, value) + noise
    return struct.pack("<Q", len(raw)) + raw + data


def value_of(file: link.File) -> float:
    """Return the number that a snapshot holds."""
    path = Path(file.path)
    begin = read_header(path).tensors["value"].begin
    with path.open("rb") as content:
        (header,) = struct.unpack("<Q", content.read(8))
        content.seek(8 + header + begin)
        return float(struct.unpack("<f", content.read(4))[0])


def put(folder: Path, data: bytes, suffix: str = ".safetensors") -> link.File:
    digest = hashlib.sha256(data).hexdigest()
    staged = folder / f".{digest}.tmp"
    staged.write_bytes(data)
    whole = folder / f"{digest}{suffix}"
    staged.rename(whole)
    return link.File(str(whole), digest, len(data))


if __name__ == "__main__":
    sys.exit(main())
