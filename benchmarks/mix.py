"""What one mix costs: ours, a dense float64 SVD, and PEFT's ``add_weighted_adapter(combination_type="svd")``.

All work on the same adapters, turn by turn in one run: first every method once, then every method again. The whole mix
of a 7B-class model, which others would take hours for, is beside the matrix products that it makes, and nothing else.
Prints a table and writes benchmarks/results/mix.json. With the 4096 x 4096 layer it takes about ten minutes.

    python -m benchmarks.mix [--quick] [--turns 3] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.machine import machine, resident
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.gram import MEMORY_BYTES, piece_bytes
from decaf_node.lowrank.mix import Path as MixPath
from decaf_node.lowrank.mix import mix_products, one_thread
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.lowrank.product import Product

RESULTS = Path(__file__).parent / "results" / "mix.json"
Shapes = Mapping[str, tuple[int, int]]
Method = Callable[[], dict[str, Product]]

LARGE: Shapes = {"layer": (4096, 4096)}
MEDIUM: Shapes = {"layer": (1024, 1024)}
MINILM: Shapes = {f"layer_{i}_{name}": (384, 384) for i in range(6) for name in ("query", "value")}
SEVEN_B: Shapes = {
    f"layer_{i}_{name}": shape
    for i in range(32)
    for name, shape in {
        "q": (4096, 4096),
        "k": (1024, 4096),
        "v": (1024, 4096),
        "o": (4096, 4096),
        "gate": (14336, 4096),
        "up": (14336, 4096),
        "down": (4096, 14336),
    }.items()
}


@dataclass(frozen=True)
class Case:
    """An own adapter and those of the neighbours, all with the same weight; the first is our own."""

    name: str
    adapters: Sequence[Adapter]

    @property
    def weights(self) -> list[float]:
        return [1 / len(self.adapters)] * len(self.adapters)

    def layer(self, name: str) -> list[Product]:
        return [adapter.products[name] for adapter in self.adapters]


@dataclass
class Row:
    """One method on one case. error: largest relative Frobenius distance of a layer from the dense float64 result."""

    case: str
    method: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    error: float | None = None
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def time(self, method: Method, device: str) -> dict[str, Product]:
        """Run a method once; note the time on the wall, and that of its CPU threads, which other work shifts less."""
        wall, cpu = time.perf_counter(), time.process_time()
        mixed = method()
        if device == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - wall)
        self.cpu_seconds.append(time.process_time() - cpu)
        return mixed


def make_case(name: str, shapes: Shapes, rank: int, neighbours: int, device: str) -> Case:
    """Return seeded adapters as after some training: balanced, partly in common, scale 2."""
    generator = torch.Generator().manual_seed(0)

    def factor(rows: int, columns: int) -> Tensor:
        return 0.02 * torch.randn(rows, columns, generator=generator)

    common = {layer: (factor(d, rank), factor(rank, k)) for layer, (d, k) in shapes.items()}

    def adapter() -> Adapter:
        products = {}
        for layer, (b, a) in common.items():
            own_b, own_a = b + factor(*b.shape), a + factor(*a.shape)
            products[layer] = Product(own_b.to(device), own_a.to(device), 2.0)
        return Adapter(products, {})

    return Case(name, [adapter() for _ in range(1 + neighbours)])


def ours(case: Case) -> Method:
    """Return the whole mix of a node: mixed, cut, aligned with our own factors."""
    now, *others = case.adapters
    edges = [AdapterEdge(now, theirs, weight) for theirs, weight in zip(others, case.weights, strict=False)]
    return lambda: dict(mix_adapters(now, edges).adapter.products)


def ours_by_path(case: Case, path: MixPath) -> Method:
    """Return only the mix of the products, by one of its two ways, on one thread."""

    def mix() -> dict[str, Product]:
        with one_thread():
            return {
                name: mix_products(case.layer(name), case.weights, own.rank, own.scale, path=path).product
                for name, own in case.adapters[0].products.items()
            }

    return mix


def dense_svd(case: Case) -> Method:
    """Return the plain way: the weighted sum as a float64 matrix, ``torch.linalg.svd``, the first r triples."""

    def mix() -> dict[str, Product]:
        return {name: dense_best(case.layer(name), case.weights) for name in case.adapters[0].products}

    return mix


def dense_best(products: Sequence[Product], weights: Sequence[float]) -> Product:
    own = products[0]
    terms = (weight * p.scale * (p.b.double() @ p.a.double()) for weight, p in zip(weights, products, strict=True))
    total = torch.zeros(own.shape, dtype=torch.float64, device=own.b.device)
    for term in terms:
        total += term
    u, values, v = torch.linalg.svd(total, full_matrices=False)
    root = (values[: own.rank] / own.scale).sqrt()
    return Product(u[:, : own.rank] * root, root[:, None] * v[: own.rank], own.scale)


def peft_svd(case: Case, device: str) -> Method:
    """Return PEFT's own way, on a model of bare linear layers that holds the same adapters."""
    from peft import LoraConfig, get_peft_model

    own = case.adapters[0].products
    layers = {name: nn.Linear(p.shape[1], p.shape[0], bias=False, device=device) for name, p in own.items()}
    rank, scale = next((p.rank, p.scale) for p in own.values())
    config = LoraConfig(r=rank, lora_alpha=int(rank * scale), target_modules=list(layers))
    model: Any = get_peft_model(nn.ModuleDict(layers), config, adapter_name="node0")
    names = [f"node{i}" for i in range(len(case.adapters))]
    for name, adapter in zip(names, case.adapters, strict=True):
        if name != "node0":
            model.add_adapter(name, config)
        for layer, product in adapter.products.items():
            module = model.base_model.model[layer]
            module.lora_B[name].weight.data.copy_(product.b)
            module.lora_A[name].weight.data.copy_(product.a)

    def mix() -> dict[str, Product]:
        model.base_model.add_weighted_adapter(names, case.weights, "mix", combination_type="svd", svd_rank=rank)
        modules = {layer: model.base_model.model[layer] for layer in own}
        mixed = {
            layer: Product(
                module.lora_B["mix"].weight.detach(), module.lora_A["mix"].weight.detach(), module.scaling["mix"]
            )
            for layer, module in modules.items()
        }
        model.delete_adapter("mix")  # it would not be mixed again otherwise
        return mixed

    return mix


def measure(case: Case, methods: Mapping[str, tuple[Method, int]], turns: int, device: str) -> Iterator[Row]:
    """Time the methods turn by turn; each is repeated as often in a turn as it says, and its result is checked."""
    rows = {name: Row(case.name, name) for name in methods}
    results: dict[str, dict[str, Product]] = {}
    for turn in range(turns):
        for name, (method, repeats) in methods.items():
            if turn == 0 and repeats > 1:
                method()  # warm
            for _ in range(repeats):
                results[name] = rows[name].time(method, device)
    for name, row in rows.items():
        row.error = max(difference(results[name][layer], exact) for layer, exact in results["dense"].items())
        yield row


def difference(product: Product, exact: Product) -> float:
    """Return the relative Frobenius distance, from the dense matrices: it may be too small for the factored one."""
    dense, other = (p.scale * (p.b.double() @ p.a.double()) for p in (exact, product))
    return float((other - dense).norm() / dense.norm())


def products_alone(case: Case) -> Method:
    """Return the matrix products that a mix makes, on blocks that are in the cache already.

    They are those of the Gram matrices of both stacks and of the new factors, in float64, on as many threads.
    """
    sides = [side for product in case.adapters[0].products.values() for side in product.shape]
    rank = next(product.rank for product in case.adapters[0].products.values())
    width = rank * len(case.adapters)
    device = next(product.b.device for product in case.adapters[0].products.values())
    workers = torch.get_num_threads()
    rows = piece_bytes(device, MEMORY_BYTES // workers) // (8 * width)
    block, coefficients = torch.rand(rows, width, dtype=torch.float64), torch.rand(width, rank, dtype=torch.float64)
    block, coefficients = block.to(device), coefficients.to(device)

    def side(length: int) -> None:
        for start in range(0, length, rows):
            part = block[: length - start]
            part.mT @ part, coefficients.mT @ part.mT

    def multiply() -> dict[str, Product]:
        with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(side, sides))
        return {}

    return multiply


def on_one_thread(method: Method) -> Method:
    def mix() -> dict[str, Product]:
        with one_thread():
            return method()

    return mix


def in_bfloat16(case: Case) -> Case:
    def rounded(adapter: Adapter) -> Adapter:
        return Adapter(
            {name: Product(p.b.bfloat16(), p.a.bfloat16(), p.scale) for name, p in adapter.products.items()}, {}
        )

    return Case(case.name, [rounded(adapter) for adapter in case.adapters])


def measure_whole(case: Case, turns: int, device: str) -> list[Row]:
    """Time whole mixes beside their matrix products alone, and find the peak of memory beyond inputs and outputs.

    Of the very first mix: what later ones reuse is held already.
    """
    methods = {
        "ours": ours(case),
        "ours, 1 thread": on_one_thread(ours(case)),
        "ours, bfloat16": ours(in_bfloat16(case)),
        "its matrix products alone": products_alone(case),
    }
    rows = {name: Row(case.name, name) for name in methods}
    reset_peak(device)
    before = memory(device, "VmRSS")
    mixed = methods["ours"]()
    outputs = sum(product.b.nbytes + product.a.nbytes for product in mixed.values())
    rows["ours"].peak_bytes = memory(device, "VmHWM") - before - outputs
    del mixed
    for _ in range(turns):
        for name, method in methods.items():
            rows[name].time(method, device)
    return list(rows.values())


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def memory(device: str, kind: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() if kind == "VmHWM" else torch.cuda.memory_allocated()
    return resident(kind=kind)


def run(arguments: argparse.Namespace) -> list[Row]:
    device, turns = arguments.device, arguments.turns
    seven = {name: shape for name, shape in SEVEN_B.items() if not arguments.quick or name.startswith("layer_0_")}
    whole = make_case(f"7B class, {len(seven)} layers, r=16, 5 neighbours", seven, 16, 5, device)
    rows = measure_whole(whole, turns + 2, device)
    del whole
    for name, shapes, rank, neighbours in (
        ("MiniLM, 12 layers of 384x384, r=8, 4 neighbours", MINILM, 8, 4),
        ("1024x1024, r=16, 5 neighbours", MEDIUM, 16, 5),
        ("4096x4096, r=16, 5 neighbours", LARGE, 16, 5),
    ):
        if shapes is LARGE and arguments.quick:
            continue
        case = make_case(name, shapes, rank, neighbours, device)
        methods = {
            "ours": (ours(case), 10),
            "gram path, 1 thread": (ours_by_path(case, "gram"), 10),
            "qr path, 1 thread": (ours_by_path(case, "qr"), 10),
            "dense": (dense_svd(case), 1),
            "peft": (peft_svd(case, device), 1),
        }
        rows += measure(case, methods, turns, device)
    return rows


def show(rows: Sequence[Row], on: Mapping[str, Any]) -> None:
    table = Table(title=f"One mix ({on['gpu'] or on['cpu']}, {on['cores']} cores, torch {on['torch']})")
    for column in (
        "case",
        "method",
        "median",
        "fastest to slowest",
        "CPU time",
        "runs",
        "against ours",
        "error",
        "peak beyond in/out",
    ):
        table.add_column(column)
    for row in rows:
        own = next(other for other in rows if other.case == row.case and other.method == "ours")
        table.add_row(
            row.case,
            row.method,
            f"{row.median:.4g} s",
            f"{min(row.seconds):.4g} - {max(row.seconds):.4g} s",
            f"{statistics.median(row.cpu_seconds):.4g} s",
            str(len(row.seconds)),
            f"{row.median / own.median:.3g}x",
            "" if row.error is None else f"{row.error:.1e}",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f} MiB",
        )
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes; nothing is written")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    rows, on = run(arguments), machine(arguments.device)
    show(rows, on)
    if not arguments.quick:
        document = {"machine": on, "rows": [{**asdict(row), "median": row.median} for row in rows]}
        target = RESULTS.with_name("mix-cuda.json") if arguments.device == "cuda" else RESULTS
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
