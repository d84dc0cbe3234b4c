"""Several processes of one machine that train one adapter: rank 0 speaks to the daemon, the others do as it says.

torch's DistributedDataParallel averages the gradients, so adapter and optimizer stay the same everywhere. What else
changes an adapter comes from the daemon, and to rank 0 alone. So wherever a Trainer may serve the daemon, all its
ranks meet (``together``): rank 0 serves, and then tells the others what came of it: a saved state to load, an adapter
to take, whether to log, whether to stop. They know nothing of rounds.

Words go by a group of their own over gloo that never gives up, as a pause may last; a process that ends breaks it at
once. Adapters go by the group of the gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import TrainerControl

from decaf_node.errors import TryAgain
from decaf_node.link import File, StartTraining, decode, encode
from decaf_node.training.launch import RENDEZVOUS_VARIABLE

FOREVER = timedelta(days=3650)
UNCHANGED = -1  # told in place of how many labels are weighed


class Trained(Protocol):
    """What is the same at all ranks; see ``host.TrainerHost``."""

    @property
    def restored(self) -> tuple[File, File | None] | None:
        """The saved state that was loaded."""

    @property
    def loads(self) -> int:
        """How often the adapter was changed by anything but a step."""

    def named(self) -> Mapping[str, nn.Parameter]:
        """Return the adapter's parameters."""

    def restore(self, snapshot: File, trainer: File | None) -> None:
        """Load a saved state."""

    @property
    def mesh_labels(self) -> tuple[float, ...]:
        """The parts of labels in the mesh that they are weighed by; empty where they are not."""

    def weigh_labels(self, mesh: Sequence[float]) -> None:
        """Weigh labels from now on as in these parts."""


class Ranks(Protocol):
    """How a process stands to the others of its trainer; the leader is the one that speaks to the daemon."""

    def share(self, make: Callable[[], str]) -> str:
        """Return what the leader's ``make`` returns, at every rank."""

    def together(self, control: TrainerControl, trained: Trained, serve: Callable[[], None]) -> None:
        """Have the leader serve the daemon, and do what came of it."""


class Single:
    """The only process."""

    def share(self, make: Callable[[], str]) -> str:
        return make()

    def together(self, control: TrainerControl, trained: Trained, serve: Callable[[], None]) -> None:
        serve()


class Leader:
    """Rank 0."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._restored = False
        self._loads = 0
        self._labels: tuple[float, ...] = ()

    def share(self, make: Callable[[], str]) -> str:
        text = make()
        data = text.encode()
        self._tell([len(data)])
        if data:
            self._say(data)
        return text

    def together(self, control: TrainerControl, trained: Trained, serve: Callable[[], None]) -> None:
        serve()
        start = b""
        if trained.restored is not None and not self._restored:
            self._restored, start = True, encode(StartTraining(0, *trained.restored))
        changed, self._loads = trained.loads != self._loads, trained.loads
        weighed, self._labels = trained.mesh_labels != self._labels, trained.mesh_labels
        labels = len(self._labels) if weighed else UNCHANGED
        self._tell([control.should_training_stop, control.should_log, changed, len(start), labels])
        if start:
            self._say(start)
        if weighed:
            self._send(torch.tensor(self._labels, dtype=torch.float64))
        if changed:
            _broadcast_adapter(trained)

    def _tell(self, numbers: list[int]) -> None:
        self._send(torch.tensor(numbers, dtype=torch.int64))

    def _say(self, data: bytes) -> None:
        self._send(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def _send(self, words: Tensor) -> None:
        try:
            dist.broadcast(words, 0, self._group)
        except RuntimeError as error:  # torch's own are all of this kind
            raise TryAgain(
                "training.follower-lost", "Another process of this trainer has ended, and this one ends too."
            ) from error


class Follower:
    """Any other rank."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def share(self, make: Callable[[], str]) -> str:
        (size,) = self._told(1)
        return self._hear(size).decode() if size else ""

    def together(self, control: TrainerControl, trained: Trained, serve: Callable[[], None]) -> None:
        stop, log, changed, start_bytes, labels = self._told(5)
        if start_bytes:
            start = decode(self._hear(start_bytes))
            assert isinstance(start, StartTraining)
            assert start.snapshot is not None
            trained.restore(start.snapshot, start.trainer)
        if labels != UNCHANGED:
            trained.weigh_labels(self._heard(torch.empty(labels, dtype=torch.float64)).tolist())
        if changed:
            _broadcast_adapter(trained)
        control.should_training_stop, control.should_log = bool(stop), bool(log)

    def _told(self, count: int) -> list[int]:
        return [int(number) for number in self._heard(torch.empty(count, dtype=torch.int64))]

    def _hear(self, size: int) -> bytes:
        return bytes(self._heard(torch.empty(size, dtype=torch.uint8)).tolist())

    def _heard(self, room: Tensor) -> Tensor:
        try:
            dist.broadcast(room, 0, self._group)
        except RuntimeError as error:  # torch's own are all of this kind
            raise TryAgain(
                "training.leader-lost", "The first process of this trainer has ended, and this one ends too."
            ) from error
        return room


def find_ranks() -> Ranks:
    """Return how this process stands to the others; to be called by all of them at the same time."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Single()
    group = dist.new_group(backend="gloo", timeout=FOREVER)
    return Leader(group) if dist.get_rank() == 0 else Follower(group)


def meet(environ: Mapping[str, str] = os.environ) -> None:
    """Join the other processes that ``launch.py`` has started, if it has. By a file: nothing listens for strangers."""
    if RENDEZVOUS_VARIABLE in environ:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            init_method=f"file://{environ[RENDEZVOUS_VARIABLE]}",
            rank=int(environ["RANK"]),
            world_size=int(environ["WORLD_SIZE"]),
        )


def part() -> None:
    """Leave the other processes, at a common end."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _broadcast_adapter(trained: Trained) -> None:
    """Give every rank the leader's adapter."""
    for parameter in trained.named().values():
        dist.broadcast(parameter.detach(), 0)
