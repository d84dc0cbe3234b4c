"""The ways to solve a mix's cores that the GPU's benchmark compares, beside a plain SVD."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import MORE, RANK, Solve, by_eigh, by_subspace, by_svd, cores_of, measure, off, on_cpu, orthonormal
from benchmarks.mix import make_case
from decaf_node.lowrank.mix import mix_products

CASE = make_case("small", {"layer_0_q": (90, 120), "layer_0_k": (120, 100)}, RANK, 2, "cpu")


def test_cores_have_the_singular_values_of_the_mix() -> None:
    for core, name in zip(cores_of(CASE), CASE.adapters[0].products, strict=True):
        mixed = mix_products(CASE.layer(name), CASE.weights, RANK).product
        values = torch.linalg.svdvals(mixed.dense().double())[:RANK]
        assert torch.allclose(torch.linalg.svdvals(core)[:RANK], values, rtol=1e-5)


@pytest.mark.parametrize("solve", [on_cpu, by_svd, by_eigh, by_subspace(30)])
def test_each_way_finds_the_leading_part(solve: Solve) -> None:
    cores = cores_of(CASE)
    u, values, v = solve(cores)
    assert (u.shape, values.shape, v.shape) == ((2, 48, RANK), (2, RANK), (2, 48, RANK))
    assert off((u, values, v), by_svd(cores)) < 1e-7
    assert off(by_subspace(1)(cores), by_svd(cores)) > 1e-5


def test_a_basis_is_orthonormal_and_spans_the_same() -> None:
    torch.manual_seed(0)
    tall = torch.randn(3, 40, RANK + MORE, dtype=torch.float64) @ torch.diag(
        torch.logspace(0, -4, RANK + MORE).double()
    )
    basis = orthonormal(tall)
    assert torch.allclose(basis.mT @ basis, torch.eye(RANK + MORE, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(basis @ (basis.mT @ tall), tall, atol=1e-10)


def test_all_of_it_runs_without_a_gpu() -> None:
    rows = {row.what: row for row in measure(CASE, "cpu", 1)}
    mix = rows["mix"]
    assert mix.error is not None
    assert mix.error < 1e-6
    assert all(len(row.seconds) == 1 for row in rows.values())
