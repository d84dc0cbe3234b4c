"""What a mix takes on a GPU, beside what the memory and the matrix products allow; and ways to solve its small cores.

The adapter is that of a 7B-class model: 224 layers, rank 16, our own and five neighbours', so each core is 96 x 96.

- **mix**: ``mix_adapters`` as a node calls it, its peak of memory beyond inputs and outputs, and its error: the
  largest relative Frobenius distance of two layers from a dense float64 SVD.
- **bounds**: the matrix products that it cannot do without; and reading both stacks twice and writing the result once,
  at the rate at which this device copies.
- **cores**: the first 16 singular triples of all 224, in float64: by the CPU (``eigh`` of ``C^T C``, nearly what the
  product does there, one thread a group of layers), by the device's own batched ``svd`` and ``eigh``, and by subspace
  iteration that starts from our own factors, which are a part of the stack. PyTorch loops over matrices beyond 32 x 32
  in some versions (issues 175585, 174674). The error is that of the leading part, relative to the largest singular
  value.

It needs nothing but torch and the package. Prints one table; on a GPU it writes benchmarks/results/gpu.json too.

    python -m benchmarks.gpu [--device cuda] [--layers 32] [--turns 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import in_words, machine
from benchmarks.mix import SEVEN_B, Case, dense_best, difference, make_case, memory, ours, products_alone, reset_peak
from decaf_node.lowrank.mix import one_thread
from decaf_node.lowrank.product import Product

RESULTS = Path(__file__).parent / "results" / "gpu.json"
RANK, NEIGHBOURS = 16, 5
CHECKED = ("layer_0_q", "layer_0_k")  # a dense SVD of the others takes minutes
MORE = 8  # columns of the subspace beyond the rank
PASSES = (2, 4, 8)

Triples = tuple[Tensor, Tensor, Tensor]
"""u (n, m, r), values (n, r), v (n, m, r)."""
Solve = Callable[[Tensor], Triples]


@dataclass
class Row:
    """seconds: of each turn; error, peak_bytes: where they are known."""

    what: str
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    peak_bytes: int | None = None


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(row: Row, work: Callable[[], object], device: str) -> None:
    """Do it once more, from an idle device to an idle device."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    row.seconds.append(time.perf_counter() - start)


def copying(case: Case) -> Callable[[], object]:
    """Return as many bytes of copying as a mix must move: half of these are read, half written."""
    factors = sum(p.b.nbytes + p.a.nbytes for adapter in case.adapters for p in adapter.products.values())
    new = factors // len(case.adapters)
    device = next(iter(case.adapters[0].products.values())).b.device
    source = torch.empty((2 * factors + new) // 2, dtype=torch.uint8, device=device)
    return lambda: source.clone()


def cores_of(case: Case) -> Tensor:
    """Return a core of each layer, the product of the triangles of its stacks, in float64 on their device."""
    cores = []
    for name in case.adapters[0].products:
        layer, weight = case.layer(name), case.weights[0] ** 0.5
        left = torch.cat([weight * product.b.double() for product in layer], 1)
        right = torch.cat([weight * product.scale * product.a.double() for product in layer], 0)
        triangles = (torch.linalg.cholesky(stack.mT @ stack, upper=True) for stack in (left, right.mT))
        root_l, root_r = triangles
        cores.append(root_l @ root_r.mT)
    return torch.stack(cores)


def on_cpu(cores: Tensor) -> Triples:
    """As a mix does, one thread a group of layers."""
    workers = torch.get_num_threads()

    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(by_eigh, cores.cpu().chunk(4 * workers)))
    u, values, v = (torch.cat(part).to(cores.device) for part in zip(*parts, strict=True))
    return u, values, v


def by_svd(cores: Tensor) -> Triples:
    u, values, vh = torch.linalg.svd(cores)
    return u[..., :RANK], values[..., :RANK], vh.mT[..., :RANK]


def by_eigh(cores: Tensor) -> Triples:
    """By the eigenvectors of ``C^T C``: half of float64's digits are left, which float32 factors do not miss."""
    squares, vectors = torch.linalg.eigh(cores.mT @ cores)
    v = vectors[..., -RANK:].flip(-1)
    values = squares[..., -RANK:].flip(-1).clamp_min(0).sqrt()
    return cores @ v / values[..., None, :].clamp_min(torch.finfo(torch.float64).tiny), values, v


def by_subspace(passes: int) -> Solve:
    """Iterate from our own factors, the first columns; at the end Rayleigh-Ritz, a batched SVD of small matrices."""

    def solve(cores: Tensor) -> Triples:
        width = RANK + MORE
        basis = torch.eye(cores.shape[-1], width, dtype=cores.dtype, device=cores.device).expand(len(cores), -1, -1)
        for _ in range(passes):
            basis = orthonormal(cores.mT @ (cores @ basis))
        image = cores @ basis
        left = orthonormal(image)
        u, values, vh = torch.linalg.svd(left.mT @ image)
        return left @ u[..., :RANK], values[..., :RANK], basis @ vh.mT[..., :RANK]

    return solve


def orthonormal(tall: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns, by Cholesky-QR twice: matrix products and small batched Cholesky."""
    for _ in range(2):
        gram = tall.mT @ tall
        shift = torch.finfo(tall.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        eye = torch.eye(gram.shape[-1], dtype=tall.dtype, device=tall.device)
        root = torch.linalg.cholesky_ex(gram + shift[:, None, None] * eye, upper=True).L
        tall = torch.linalg.solve_triangular(root, tall, upper=True, left=False)
    return tall


def off(found: Triples, exact: Triples) -> float:
    """Return the largest error of a leading part, relative to its core's largest singular value."""

    def whole(triples: Triples) -> Tensor:
        u, values, v = triples
        return u * values[..., None, :] @ v.mT

    apart = torch.linalg.matrix_norm(whole(found) - whole(exact))
    return float((apart / exact[1][..., 0]).max())


def measure(case: Case, device: str, turns: int) -> list[Row]:
    cores = cores_of(case)
    solvers: Mapping[str, Solve] = {
        "cores: CPU": on_cpu,
        "cores: batched svd": by_svd,
        "cores: batched eigh": by_eigh,
        **{f"cores: subspace, {passes} passes": by_subspace(passes) for passes in PASSES},
    }
    exact = by_svd(cores.cpu())
    mix, mixed = ours(case), dict[str, Product]()
    works: dict[str, Callable[[], object]] = {
        "mix": lambda: mixed.update(mix()),
        "its matrix products alone": products_alone(case),
        "its bytes, copied": copying(case),
        **{name: partial(solve, cores) for name, solve in solvers.items()},
    }
    rows = {name: Row(name) for name in works}
    reset_peak(device)
    before = memory(device, "VmRSS")
    works["mix"]()
    wait(device)
    outputs = sum(product.b.nbytes + product.a.nbytes for product in mixed.values())
    rows["mix"].peak_bytes = memory(device, "VmHWM") - before - outputs
    checked = [name for name in CHECKED if name in mixed]
    rows["mix"].error = max(difference(mixed[name], dense_best(case.layer(name), case.weights)) for name in checked)
    for name, solve in solvers.items():
        u, values, v = (part.cpu() for part in solve(cores))
        rows[name].error = off((u, values, v), exact)
    for _ in range(turns):
        for name, work in works.items():
            timed(rows[name], work, device)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--layers", type=int, default=32, help="of the model, seven matrices each")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here that PyTorch sees; --device cpu tries it out without one")
    shapes = {name: shape for name, shape in SEVEN_B.items() if int(name.split("_")[1]) < given.layers}
    case = make_case("7B class", shapes, RANK, NEIGHBOURS, given.device)
    rows, on = measure(case, given.device, given.turns), machine(given.device)
    table = Table(title=f"{len(shapes)} layers, rank {RANK}, {NEIGHBOURS} neighbours: {in_words(on)}")
    for column in ("what", "median", "fastest to slowest", "error", "peak beyond in/out"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.what,
            f"{1000 * statistics.median(row.seconds):.1f} ms",
            f"{1000 * min(row.seconds):.1f} - {1000 * max(row.seconds):.1f} ms",
            "" if row.error is None else f"{row.error:.1e}",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f} MiB",
        )
    Console(width=140).print(table)
    if given.device == "cuda":
        document = {"machine": on, "plan": vars(given), "rows": [asdict(row) for row in rows]}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
