"""What each wire format costs: bytes of a snapshot, time to write and to read it, and how far off its products are.

The formats are timed turn by turn in one run, on the adapter of a 7B-class model (rank 16 on every linear layer), its
directions of a spectrum over four decades. Prints a table and writes benchmarks/results/wire.json.

    python -m benchmarks.wire [--turns 5] [--layers 32]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from decaf_node.lowrank.adapter import Adapter, distance, norm
from decaf_node.lowrank.codec import read_snapshot, write_snapshot
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import Wire

RESULTS = Path(__file__).parent / "results" / "wire.json"
SHAPES = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
DIGEST = "0" * 64


@dataclass
class Row:
    """off: Frobenius distance of the products that are read from those that were written, in parts of these."""

    wire: Wire
    bytes: int = 0
    off: float = 0.0
    write_seconds: list[float] = field(default_factory=list)
    read_seconds: list[float] = field(default_factory=list)


def adapter_of(layers: int, rank: int = 16) -> Adapter:
    """Return a seeded adapter, balanced, whose singular values fall by four decades."""
    generator = torch.Generator().manual_seed(0)
    decay = torch.logspace(0, -2, rank)  # of each factor
    products = {}
    for layer in range(layers):
        for place, (rows, columns) in enumerate(SHAPES):
            b = torch.randn(rows, rank, generator=generator) / math.sqrt(rows) * decay
            a = torch.randn(rank, columns, generator=generator) / math.sqrt(columns) * decay[:, None]
            products[f"layer.{layer}.{place}"] = Product(b, a, 2.0)
    return Adapter(products, {})


def turn(row: Row, adapter: Adapter, path: Path) -> None:
    """Write and read once; reading touches every number, as a mapped file is read only then."""
    start = time.perf_counter()
    write_snapshot(path, adapter, wire=row.wire, schema=DIGEST, base=DIGEST, round=1)
    row.write_seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    _, read = read_snapshot(path)
    for product in read.products.values():
        product.a.sum(), product.b.sum()
    row.read_seconds.append(time.perf_counter() - start)
    row.bytes = path.stat().st_size
    row.off = distance(read, adapter) / norm(adapter)


def table(rows: list[Row]) -> Table:
    shown = Table("wire", "MB", "of float32", "write", "read", "off")
    whole = rows[0]
    for row in rows:
        shown.add_row(
            row.wire,
            f"{row.bytes / 1e6:.1f}",
            f"{row.bytes / whole.bytes:.1%}",
            times(row.write_seconds, whole.write_seconds),
            times(row.read_seconds, whole.read_seconds),
            f"{row.off:.1e}",
        )
    return shown


def times(seconds: list[float], whole: list[float]) -> str:
    """Return the median, its range, and the median of its ratio to float32's, turn by turn."""
    ratio = statistics.median(one / other for one, other in zip(seconds, whole, strict=True))
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), {ratio:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--layers", type=int, default=32)
    given = parser.parse_args()
    adapter = adapter_of(given.layers)
    rows = [Row(wire) for wire in get_args(Wire)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.turns):
            for row in rows:
                turn(row, adapter, Path(folder, "snapshot.safetensors"))
    Console().print(table(rows))
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
