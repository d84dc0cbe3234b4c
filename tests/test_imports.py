"""What import-linter's contracts (pyproject.toml) cannot say of who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MESH = sorted((ROOT / "decaf_node" / "mesh").glob("*.py"))
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "numpy", "pandas", "matplotlib"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"


def foreign(source: str) -> list[str]:
    """The imports of ``source`` that are neither the standard library's, nor the mesh's own, nor the errors."""
    ours = ("decaf_node.mesh", "decaf_node.errors")
    return [
        name
        for name in imports(ast.parse(source))
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(ours)
    ]


def entropy(source: str) -> list[str]:
    """What ``source`` takes from the module random beyond the type Random, which is handed in seeded."""
    taken = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                taken += [alias.name for alias in names if alias.name == "random"]
            case ast.ImportFrom(module="random", names=names):
                taken += [alias.name for alias in names if alias.name != "Random"]
            case ast.Call(func=ast.Name(id="Random")):
                taken.append("Random()")
    return taken


@pytest.mark.parametrize("path", MESH, ids=lambda path: path.name)
def test_the_mesh_needs_the_standard_library_only(path: Path) -> None:
    assert foreign(path.read_text()) == []


@pytest.mark.parametrize("path", MESH, ids=lambda path: path.name)
def test_the_mesh_draws_from_what_it_is_handed_only(path: Path) -> None:
    assert entropy(path.read_text()) == []


def test_what_the_mesh_must_not_do_is_seen() -> None:
    assert foreign("import dataclasses\nimport attrs\nfrom decaf_node.link import File") == ["attrs", "decaf_node.link"]
    assert {"random", "choice", "Random()"} == set(
        entropy("from random import Random, choice\nimport random\nRandom(1)")
    )


@pytest.mark.parametrize("package", ["cli", "daemon", "mesh"])
def test_no_module_of_it_loads_torch_when_it_is_imported(package: str) -> None:
    code = f"""
import importlib, pkgutil, sys
import decaf_node.{package} as package
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(found.name)
print(*sorted({HEAVY} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
