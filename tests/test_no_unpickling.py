"""Nothing that comes in can be turned into running code: no module of ours unpickles, evaluates or executes data.

Every file of the package is read as a syntax tree. What a rule would miss is planted below, and must be found.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in (ROOT / "decaf_node").rglob("*.py") if "v1" not in path.parts)

# Modules whose readers run what they read, or whose purpose is to do so.
UNPICKLERS = {
    *("_pickle", "cPickle", "cloudpickle", "copyreg", "dill", "joblib", "jsonpickle", "marshal", "pickle"),
    *("pickletools", "shelve", "code", "codeop", "runpy", "logging.config", "torch.package", "xmlrpc"),
}
# They pickle between processes; a file that may use them is named here with the reason.
BETWEEN_PROCESSES = {
    *("concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process", "multiprocessing"),
    "torch.multiprocessing",
}
LOCAL = {"decaf_node/sim/campaign.py", "decaf_node/sim/progress.py"}  # seeds for its own children; no network
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
READS_OBJECTS = {"read_pickle", "to_pickle", "Unpickler", "unsafe_load", "full_load", "UnsafeLoader", "FullLoader"}
LOADERS = {"torch", "numpy", "np", "yaml", "pickle", "dill", "joblib"}  # their plain ``load`` is looked at


def found(source: str, name: str = "") -> list[str]:
    """Return what in ``source`` could run data, by its name."""
    return list(_found(ast.parse(source), name))


def _found(tree: ast.AST, name: str) -> Iterator[str]:
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from (module for module in _modules(node) if _is_forbidden(module, name))
            case ast.Call(func=ast.Name(id=called)) if called in RUNS_TEXT:
                yield called
            case ast.Name(id=used) | ast.Attribute(attr=used) | ast.alias(name=used) if used in READS_OBJECTS:
                yield used
            case ast.Call(func=function):
                yield from _loading(node, _dotted(function, aliases))


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif not node.level and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_forbidden(module: str, name: str) -> bool:
    parts = module.split(".")
    names = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return bool(names & UNPICKLERS) or (name not in LOCAL and bool(names & BETWEEN_PROCESSES))


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Return what names of the module stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(function: ast.expr, aliases: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ".".join(["", *reversed(parts)])
    return ".".join([aliases.get(function.id, function.id), *reversed(parts)])


def _loading(call: ast.Call, dotted: str) -> Iterator[str]:
    said = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    if "weights_only" in said and not _is(said["weights_only"], True):
        yield "weights_only"
    if "allow_pickle" in said and not _is(said["allow_pickle"], False):
        yield "allow_pickle"
    module, _, attribute = dotted.rpartition(".")
    if attribute != "load" or module not in LOADERS:
        return
    if module == "torch" and _is(said.get("weights_only"), True):
        return
    if module in ("numpy", "np"):
        return  # refuses objects unless told to, which is looked at above
    yield dotted


def _is(value: ast.expr | None, constant: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is constant


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "decaf_node")))
def test_no_file_can_run_what_it_reads(path: Path) -> None:
    assert found(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    from _pickle import Unpickler",
        "import marshal, json",
        "import shelve",
        "import dill",
        "from joblib import load",
        "from torch import package",
        "import multiprocessing",
        "from concurrent.futures.process import ProcessPoolExecutor",
        "from concurrent.futures import ProcessPoolExecutor",
        "from multiprocessing.connection import Listener",
        "eval(text)",
        "class A:\n    def f(self, x):\n        return exec(x)",
        "__import__(name)",
        "compile(text, '', 'exec')",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, map_location='cpu')",
        "from torch import load\nload(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=safe)",
        "load_state(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=trusted)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.FullLoader)",
        "from yaml import unsafe_load",
        "import pandas\npandas.read_pickle(path)",
    ],
)
def test_what_must_not_be_is_found(planted: str) -> None:
    assert found(planted)


@pytest.mark.parametrize(
    "fine",
    [
        "import json\njson.load(file)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "model.eval()\nself.compile(text)",
        "from safetensors.torch import load\nload(data)",
        "import re\nre.compile('x')",
    ],
)
def test_what_is_harmless_is_let_pass(fine: str) -> None:
    assert found(fine) == []


def test_every_part_of_the_package_is_looked_at() -> None:
    parts = {path.relative_to(ROOT / "decaf_node").parts[0] for path in FILES}
    assert {"cli", "daemon", "lowrank", "mesh", "sim", "training", "link.py", "settings.py", "snapshot.py"} <= parts


def test_what_the_network_reaches_never_calls_an_unpickler() -> None:
    """Others' libraries too: the daemon's modules are loaded, and the parsers used, where unpickling is an error."""
    code = """
import importlib, pickle, pkgutil, sys
import decaf_node.daemon as package
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(found.name)
def forbidden(*_, **__):
    raise SystemExit("something has unpickled")
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = forbidden
from decaf_node.daemon import certificates, wire
from decaf_node.v1 import mesh_pb2
from decaf_node import link
frame = wire.encode(wire.Introduction("A" * 52, "x", "lab", "", 1, ""))
wire.decode(mesh_pb2.Frame.FromString(frame.SerializeToString()))
link.decode(link.encode(link.Progress(1, 1, 0.0, 1.0)))
print(sorted({"dill", "joblib", "cloudpickle", "shelve", "marshal", "torch"} & sys.modules.keys() - {"marshal"}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
