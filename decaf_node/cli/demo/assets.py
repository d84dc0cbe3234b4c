"""Where the demo's model and text lie. They are fetched by ``make demo``; nothing is downloaded from here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from decaf_node.errors import BadData

ENVIRONMENT_NAME = "DECAF_NODE_DEMO_ASSETS"


def find_assets(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the folder of the demo's files: as given, else from the environment, else ./.demo, else the user's cache.

    The folder need not exist; ``asset`` says so when something is taken from it.
    """
    if given is not None:
        return given.absolute()
    if named := environ.get(ENVIRONMENT_NAME):
        return Path(named).absolute()
    here = Path(".demo").absolute()
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/"), ".cache")) / "decaf-node/demo"
    return cache if cache.is_dir() and not here.is_dir() else here


def asset(assets: Path, name: str, flags: str = "") -> Path:
    """Return the file or folder ``name`` of ``assets``. Raises BadData, with what to type, if it is not there."""
    path = assets / name
    if not path.exists():
        raise BadData(
            "demo.assets-missing",
            f"The demo's files are not in {assets}; fetch them with `make demo{flags}` "
            "or `python tools/fetch_demo.py`, or name your own with --model, --data and --label-column.",
        )
    return path


def made_once(assets: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of ``assets``; the first time it is made, and is there as a whole or not at all."""
    folder = assets / name
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix=".new-", dir=assets) as scratch:
            fresh = Path(scratch) / "made"
            make(fresh)
            try:
                fresh.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process has been faster
                    raise
    return folder


def own_model(folder: Path) -> Path:
    """Return the user's model folder, absolute. Raises BadData if it cannot be one, before any node is started."""
    if not folder.is_dir():
        raise BadData("model.missing", f"There is no model folder {folder}; name one with --model.")
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise BadData("model.not-a-model", f"{folder} is not a model folder: it needs config.json and *.safetensors.")
    return folder.absolute()
