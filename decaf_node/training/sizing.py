"""``python -m decaf_node.training.sizing``: how large an adapter is, how fast this device. For ``decaf-node plan``.

See ``answering`` for how. Asked are ``settings`` and ``steps``: how many to time; 0: none, and no weights are loaded.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, get_args

from decaf_node.settings import ModelSection, Settings
from decaf_node.snapshot import Wire
from decaf_node.training.answering import answer, doing

if TYPE_CHECKING:
    from decaf_node.training.live import LiveAdapter

DIGEST = "0" * 64
OPTIMIZER_BYTES = 16  # a trained number in float32, with its gradient and Adam's two moments
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
NEIGHBOURS = 2  # of the mix that is timed
SEED = 0


def main() -> int:
    """Measure; return the exit code."""
    return answer(_measured)


def _measured(asked: dict[str, Any]) -> dict[str, Any]:
    settings = Settings.model_validate(asked["settings"])
    found = sizes(settings)
    if asked["steps"]:
        doing(f"timing {asked['steps']} steps")
        found |= {"step_seconds": step_seconds(settings, asked["steps"]), "mix_seconds": mix_seconds(settings)}
    return found


def sizes(settings: Settings) -> dict[str, Any]:
    """Return bytes of a snapshot by wire format, its numbers, and memory before activations.

    factors: numbers in A and B of ``rank``, which is ``lora.r``; plain: all others, also those of a rank of their own.
    """
    from decaf_node.lowrank.codec import size_of
    from decaf_node.training.live import active_adapter, find_adapter
    from decaf_node.training.offline import quiet
    from decaf_node.training.skeleton import skeleton_of

    quiet()
    model = skeleton_of(settings)
    live = find_adapter(model)
    adapter = live.read()
    rank = model.peft_config[active_adapter(model)].r
    factors = sum(p.b.numel() + p.a.numel() for p in adapter.products.values() if p.rank == rank)
    return {
        "bytes": {wire: size_of(adapter, wire=wire, schema=DIGEST, base=DIGEST, round=1) for wire in get_args(Wire)},
        "factors": factors,
        "plain": live.parameters - factors,
        "rank": rank,
        "memory_bytes": _base_bytes(model, live, settings.model) + live.parameters * OPTIMIZER_BYTES,
    }


def _base_bytes(model: Any, live: LiveAdapter, chosen: ModelSection) -> int:
    """Return the bytes of what is frozen. Quantized are the linear layers but the head, as transformers does it."""
    import torch

    trained = {id(parameter) for parameter in live.named().values()}
    frozen = {id(each): each.numel() for each in model.parameters() if id(each) not in trained}
    width = getattr(torch, chosen.dtype).itemsize
    if chosen.quantization == "none":
        return int(width * sum(frozen.values()))
    inner = model.get_base_model()
    linear = [each for each in inner.modules() if isinstance(each, torch.nn.Linear)]
    small = {id(each.weight) for each in linear if each is not inner.get_output_embeddings()}
    narrow = QUANTIZED_BYTES[chosen.quantization]
    return int(sum(numbers * (narrow if key in small else width) for key, numbers in frozen.items()))


def step_seconds(settings: Settings, steps: int) -> float:
    """Return how long a real local step takes here, the first ``steps`` left out. Raises what training does."""
    from decaf_node.training.alone import LinkToNobody, train

    document = settings.model_dump(mode="json")
    document["round"] |= {"steps": steps, "limit": 2, "evaluate_every": 3}
    document["training"]["processes"] = 1  # of several each would take a batch of its own at a time
    twice = Settings.model_validate(document)
    link = LinkToNobody(twice, lambda *_: None)
    train(twice, link)
    return link.step_seconds


def mix_seconds(settings: Settings) -> float:
    """Return how long a mix of adapters of these shapes takes, with two neighbours, on the device that trains."""
    import torch

    from decaf_node.lowrank.adapter import Adapter
    from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
    from decaf_node.lowrank.product import Product
    from decaf_node.training.live import find_adapter
    from decaf_node.training.skeleton import skeleton_of

    empty = find_adapter(skeleton_of(settings)).read()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn = torch.Generator(device).manual_seed(SEED)

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=drawn, device=device)

    own, *others = (
        Adapter(
            {
                name: Product(filled(product.b), filled(product.a), product.scale)
                for name, product in empty.products.items()
            },
            {name: filled(tensor) for name, tensor in empty.tensors.items()},
        )
        for _ in range(1 + NEIGHBOURS)
    )
    edges = [AdapterEdge(own, other, 1 / (1 + NEIGHBOURS)) for other in others]
    started = time.perf_counter()
    mixed = mix_adapters(own, edges, memory_bytes=settings.mixing.memory_bytes)
    assert mixed.norm > 0, "waits for the device"
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
