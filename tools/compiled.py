"""Copy the package to build/compiled and compile the mesh machine and the simulator there, with mypyc.

A long simulation then takes less than half the time; its trace stays the same. Needs a C compiler and the headers of
Python, and minutes. Nothing else uses the copy: it is for campaigns of many seeds, and for very large meshes. Worlds
that are changed, with liars or planted bugs, do not run there: nothing can inherit from what is compiled.

    make compiled
    cd build/compiled && ../../.venv/bin/python -m decaf_node.cli.main simulate --nodes 1000
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "compiled"
REST = {"attacks.py", "campaign.py", "least_squares.py", "progress.py", "run.py"}  # torch, processes, and `play`
REST |= {"faults.py", "plan.py", "problem.py"}  # frozen, and pass between processes: compiled they cannot be unpickled
FROZEN = "frozen=True(, slots=True)?"  # to set the fields of what is frozen takes several times as long, compiled too


def main() -> None:
    """Build everything anew."""
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(ROOT / "decaf_node", PLACE / "decaf_node", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(PLACE)
    places = [path for name in ("mesh", "sim") for path in sorted(Path("decaf_node", name).glob("*.py"))]
    compiled = [path for path in places if path.name not in REST | {"__init__.py"}]
    for path in compiled:
        path.write_text(re.sub(FROZEN, "unsafe_hash=True", path.read_text()))
    modules = mypycify([str(path) for path in compiled], opt_level="2")
    setup(
        name="decaf-node-compiled", packages=[], ext_modules=modules, script_args=["--quiet", "build_ext", "--inplace"]
    )


if __name__ == "__main__":
    main()
