"""``decaf-node export``: copy the last saved round's adapter folder, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text
from decaf_node.daemon.exporting import copy_adapter
from decaf_node.errors import BadSettings


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
