"""``decaf-node export``: copy the last saved round's adapter folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text
from decaf_node.errors import BadSettings, NotAllowed, TryAgain

ATTEMPTS = 5  # a running daemon may replace the adapter while it is copied


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")],
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in DIR.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the adapter of the last saved round to DIR.

    It is a folder as PEFT saves it. The node may run or not.

    Example: decaf-node export ./adapter
    """
    places = places_of(config, state, runtime)
    copy_adapter(places.state / "export" / "adapter", folder.absolute(), force)
    if as_json:
        print_json({"adapter": str(folder.absolute())})
    else:
        print_text(
            f"The adapter is in {folder}.\nLoad it in Python with:\n\n{loading_lines(folder, _model_of(places.config))}"
        )


def copy_adapter(source: Path, target: Path, force: bool = False) -> None:
    """Copy the folder that ``source`` leads to; ``target`` appears whole or not at all.

    Raises TryAgain if nothing is saved yet, NotAllowed if ``target`` holds something and ``force`` is not set,
    NotAllowed or TryAgain if the copy cannot be written.
    """
    if not source.is_dir():
        raise TryAgain(
            "export.nothing-saved", f"Nothing is saved at {source} yet; try again after the node's first saved round."
        )
    if not force and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise NotAllowed(
            "export.not-empty", f"{target} is not empty; choose another folder, or replace it with --force."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            fresh = _copy(source, Path(scratch) / "fresh")
            if force and target.exists():
                target.rename(Path(scratch) / "replaced")
            fresh.rename(target)
    except PermissionError as error:
        raise NotAllowed("export.not-permitted", f"This user may not write {target}: {error}.") from error
    except OSError as error:
        raise TryAgain("export.cannot-write", f"The adapter cannot be copied to {target}: {error}.") from error


def _copy(source: Path, fresh: Path, attempts: int = ATTEMPTS) -> Path:
    try:
        return Path(shutil.copytree(source.resolve(strict=True), fresh))
    except (shutil.Error, FileNotFoundError):
        if attempts == 1:
            raise
    shutil.rmtree(fresh, ignore_errors=True)
    return _copy(source, fresh, attempts - 1)


def loading_lines(folder: Path, model: Path) -> str:
    """Return the lines of Python that load the adapter in ``folder`` on its base model."""
    lines = (
        "from pathlib import Path",
        "from decaf_node.training.export import load_exported",
        "model, tokenizer = load_exported(",
        f"    Path({str(folder)!r}),",
        f"    Path({str(model)!r}),",
        ")",
    )
    return indent("\n".join(lines), "    ")


def _model_of(config: Path) -> Path:
    """Return the folder of the base model as the settings name it, or words for it where they cannot be read."""
    from decaf_node.settings import load_settings

    try:
        return load_settings(config, os.environ).model.path
    except BadSettings:
        return Path("folder of the base model")
