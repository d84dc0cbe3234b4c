"""Batches drawn by chance (Poisson sampling): each example is in a batch with the same probability, by itself.

The draws come from the operating system's entropy, never from ``training.seed`` or a saved state: who knew which
examples a step has seen would not need the budget's discount for not knowing, and drawing the same twice would cancel
noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import IterableDataset

from decaf_node.training.data import Stream
from decaf_node.training.examples import Example


class PoissonBatches(IterableDataset):  # type: ignore[type-arg]
    """Batches without end. rate: the probability, the same for as long as this process lives; a batch may be empty.

    The files are looked at again whenever as many batches were drawn as make an epoch; new examples are drawn with the
    same probability, so what a step costs does not depend on how many there are.
    """

    def __init__(self, stream: Stream, rate: float, generator: np.random.Generator | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._rate = rate
        self._generator = generator or np.random.default_rng()

    def __iter__(self) -> Iterator[list[Example]]:
        while True:
            for _ in range(max(1, round(1 / self._rate))):
                examples = self._stream.examples
                drawn = self._generator.random(len(examples)) < self._rate
                yield [examples[number] for number in np.flatnonzero(drawn)]
            self._stream.refresh()
