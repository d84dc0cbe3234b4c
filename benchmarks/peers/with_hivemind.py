"""A turn of hivemind: four peers of one DHT, a DecentralizedAverager with groups of four.

    python with_hivemind.py FOLDER MIB [NODE]

A step finds its group by the DHT first; that is part of its time.
"""

from __future__ import annotations

from pathlib import Path

import hivemind
import torch
from hivemind.averaging import DecentralizedAverager

from benchmarks.peers.rounds import ADDRESSES, NODES, TRAININGS, Rounds, adapter, over, play, put, wait_for


def serve(folder: Path, mib: int, name: str) -> None:
    first = folder / "first"
    if name != NODES[0]:
        wait_for(first)
    dht = hivemind.DHT(
        host_maddrs=[f"/ip4/{ADDRESSES[name]}/tcp/0"],
        initial_peers=first.read_text().split() if name != NODES[0] else None,
        start=True,
    )
    if name == NODES[0]:
        put(first, " ".join(str(address) for address in dht.get_visible_maddrs()))
    averager = DecentralizedAverager(
        [torch.from_numpy(array) for array in adapter(mib)],
        dht,
        prefix="peers",
        target_group_size=len(NODES),
        min_group_size=len(NODES),
        start=True,
    )
    rounds = Rounds(folder, name)
    for _ in range(TRAININGS):
        with averager.get_tensors() as tensors:
            for tensor, learned in zip(tensors, rounds.train([tensor.numpy() for tensor in tensors]), strict=True):
                tensor.copy_(torch.from_numpy(learned))
        averager.step()
        with averager.get_tensors() as tensors:
            rounds.holds([tensor.numpy() for tensor in tensors])
    wait_for(over(folder))


if __name__ == "__main__":
    play("benchmarks.peers.with_hivemind", serve)
