"""A turn of p2pfl: four nodes on gRPC, each connected to all others, FedAvg, settings as in its own examples.

    python with_p2pfl.py FOLDER MIB [NODE]

The model is a list of NumPy arrays: its wrappers for PyTorch and others turn theirs into such a list too. Without Ray,
which is for simulations. TLS is off, as it is until one has made certificates.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from p2pfl.learning.aggregators.fedavg import FedAvg
from p2pfl.learning.dataset.p2pfl_dataset import P2PFLDataset
from p2pfl.learning.frameworks.learner import Learner
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel
from p2pfl.node import Node
from p2pfl.settings import Settings
from p2pfl.utils.utils import set_standalone_settings, wait_convergence

from benchmarks.peers.rounds import (
    ADDRESSES,
    NODES,
    TRAININGS,
    Arrays,
    Rounds,
    adapter,
    over,
    play,
    wait_for,
)

PORT = 6666


class Adapter(P2PFLModel):  # type: ignore[misc]  # p2pfl is in an environment of its own
    """A model that is nothing but its parameters."""

    def get_parameters(self) -> Arrays:
        parameters: Arrays = self.model
        return parameters

    def set_parameters(self, params: Arrays | bytes) -> None:
        self.model: Any = params
        if isinstance(params, bytes):
            self.model, self.additional_info = self.decode_parameters(params)

    def get_framework(self) -> str:
        return "numpy"


class Adding(Learner):  # type: ignore[misc]
    """Learns by adding a constant."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__()
        self.rounds = rounds

    def fit(self) -> P2PFLModel:
        model = self.get_model()
        model.set_parameters(self.rounds.train(model.get_parameters()))
        model.set_contribution([self.addr], 1)
        return model

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self.rounds.holds(self.get_model().get_parameters())

    def interrupt_fit(self) -> None:
        pass

    def evaluate(self) -> dict[str, float]:
        return {}

    def get_framework(self) -> str:
        return "numpy"


def serve(folder: Path, mib: int, name: str) -> None:
    set_standalone_settings()
    Settings.general.DISABLE_RAY = True
    data = P2PFLDataset(Dataset.from_dict({"nothing": [0]}), dataset_name="none")
    learner = Adding(Rounds(folder, name))
    node = Node(Adapter(adapter(mib)), data, f"{ADDRESSES[name]}:{PORT}", learner, FedAvg())
    node.start()
    (folder / f"started-{name}").touch()
    for other in NODES:
        wait_for(folder / f"started-{other}")
    for other in NODES[: NODES.index(name)]:
        node.connect(f"{ADDRESSES[other]}:{PORT}")
    wait_convergence([node], len(NODES) - 1, wait=30, only_direct=True)
    if name == NODES[0]:
        time.sleep(4.0)
        node.set_start_learning(rounds=TRAININGS, epochs=1, trainset_size=len(NODES))
    wait_for(over(folder))


if __name__ == "__main__":
    play("benchmarks.peers.with_p2pfl", serve)
