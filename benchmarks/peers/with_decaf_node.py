"""A turn of decaf-node: four daemons of one mesh, each connected to all others, with mutual TLS and files on disk.

    python with_decaf_node.py FOLDER MIB [NODE SOCKET]

Their trainers speak the link as the built-in one does, and keep, hash, write, read and check snapshots as it does; but
they average the arrays as they are, as all others do here, and not products: benchmarks/mix.py has what that costs.
Unlike the defaults a node waits for its neighbours as long as it must, and does not train on meanwhile.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.rounds import ADDRESSES, NODES, RANK, Arrays, Rounds, adapter, start, until_over, wait_for
from decaf_node import link
from decaf_node.snapshot import metadata, read_header
from tests.daemon.network_lab import PORT, within
from tests.daemon.processes import Daemon, mesh
from tests.daemon.scripted_trainer import BASE, Scripted, put

PATIENCE = 600.0


class Averaging(Scripted):
    """A trainer that learns by adding a constant, and averages arrays."""

    def __init__(self, stream: socket.socket, rounds: Rounds, arrays: Arrays) -> None:
        super().__init__(stream)
        self.rounds = rounds
        self.arrays = arrays

    def publish(self) -> None:
        self.arrays = self.rounds.train(self.arrays)
        self.send(link.Progress(self.round, 3, 1.0, 10.0))
        file = put(self.spool, self.snapshot())
        self.awaited = True
        self.send(link.RoundTrained(self.round, file, RANK, 3, 1.0, 1.0, ()))

    def handle(self, message: link.Message) -> None:
        if not isinstance(message, link.MixRound):
            super().handle(message)
            return
        mixed = list(self.arrays)
        for edge in message.edges:
            pairs = zip(mixed, read(edge.own), read(edge.theirs), strict=True)
            mixed = [array + np.float32(edge.weight) * (theirs - own) for array, own, theirs in pairs]
        self.arrays = mixed
        self.rounds.holds(self.arrays)
        self.awaited, self.round = False, message.round + 1
        self.send(link.RoundMixed(message.round, len(message.edges), 0.0, 0.0, norm(self.arrays), 0.001))

    def inspect(self, snapshot: link.File, own: link.File) -> None:
        theirs, ours = read(snapshot), read(own)
        apart = norm([a - b for a, b in zip(theirs, ours, strict=True)])
        self.send(link.SnapshotInspected(snapshot.digest, math.isfinite(norm(theirs)), apart, norm(ours)))

    def save(self, round: int, folder: Path) -> None:
        state = put(folder, json.dumps({"round": round}).encode(), ".state")
        export = folder / "export"
        export.mkdir()
        self.send(link.StateSaved(round, put(folder, self.snapshot()), state, str(export)))

    def snapshot(self) -> bytes:
        """Return the arrays as a safetensors file."""
        layers = [f"layer{number}" for number in range(len(self.arrays) // 2)]
        names = [f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"]
        scales = dict.fromkeys(layers, 1.0)
        header: dict[str, object] = {"__metadata__": metadata(self.script.schema, BASE, self.round, scales)}
        end = 0
        for name, array in zip(names, self.arrays, strict=True):
            begin, end = end, end + array.nbytes
            header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, end]}
        raw = json.dumps(header).encode()
        return b"".join([struct.pack("<Q", len(raw)), raw, *(array.tobytes() for array in self.arrays)])


def read(file: link.File) -> Arrays:
    """Return the arrays of a snapshot, in the order in which they lie there."""
    path = Path(file.path)
    tensors = sorted(read_header(path).tensors.values(), key=lambda tensor: tensor.begin)
    numbers = np.fromfile(path, np.float32, offset=path.stat().st_size - tensors[-1].end)
    return [numbers[each.begin // 4 : each.end // 4].reshape(each.shape) for each in tensors]


def norm(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.vdot(array, array)) for array in arrays))


def train(folder: Path, mib: int, node: str, path: Path) -> int:
    wait_for(path)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(str(path))
    return Averaging(stream, Rounds(folder, node), adapter(mib)).run()


def main(folder: Path, mib: str) -> None:
    with mesh() as make:
        daemons, trainers = list[Daemon](), []
        for node in NODES:
            daemon: Daemon = make(
                node,
                *daemons,
                listen={"address": ADDRESSES[node], "port": PORT},
                training={"trainer": "external"},
                round={"steps": 3, "overlap": False, "wait_floor": PATIENCE, "wait_ceiling": PATIENCE},
                store={"save_every": 60.0},  # as it is by default
                mesh={"topology": "full"},
            )
            daemon.within = within(node)
            daemon.start().until(lambda status: status.address != "")
            daemons.append(daemon)
            words = ("benchmarks.peers.with_decaf_node", str(folder), mib, node, str(daemon.runtime / "trainer.sock"))
            trainers.append(start(node, sys.executable, "-m", *words, cwd=folder))
        until_over(folder, trainers)


if __name__ == "__main__":
    if sys.argv[3:]:
        sys.exit(train(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
    main(Path(sys.argv[1]), sys.argv[2])
