"""Write docs/settings.md from decaf_node/settings.py, or with --check prove that it is what would be written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from decaf_node.settings import Section, Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """# Settings

<!-- Made by `make settings` from decaf_node/settings.py. -->

One TOML file: `/etc/decaf-node/config.toml`, `$XDG_CONFIG_HOME/decaf-node/config.toml`, or the one named by `--config`.
Only `model.path` and `data.train` must be set. An unknown key is an error. Relative paths start at the file's own
folder. Durations are seconds; any other unit is a suffix of the name. Every key can also come from the environment,
which wins: `DECAF_NODE__ROUND__STEPS=20` is `steps = 20` under `[round]`.
"""


def main() -> int:
    """Write the page, or check it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    page = "\n".join(lines())
    if not parser.parse_args().check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/settings.md is not what decaf_node/settings.py gives: run make settings.", file=sys.stderr)
        return 1
    return 0


def lines() -> Iterator[str]:
    """Yield the page line by line: a table a section, a paragraph for what is handed on as it is."""
    yield HEAD
    for name, field in Settings.model_fields.items():
        yield f"## `[{name}]`\n"
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            yield "| key | values | default | meaning |"
            yield "|---|---|---|---|"
            yield from (row(key, inner) for key, inner in section.model_fields.items())
        else:
            yield f"Holds {sentence(field)}."
        yield ""


def row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", values(field), default(field), sentence(field))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def values(field: FieldInfo) -> str:
    """Return the kind of value, with its bounds, in words."""
    bounds = {
        sign: getattr(rule, bound)
        for rule in field.metadata
        for sign, bound in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt"))
        if getattr(rule, bound, None) is not None
    }
    if ">" in bounds:
        bounds.pop("≥", None)
    return ", ".join([kind(field.annotation), *(f"{sign} {bound}" for sign, bound in bounds.items())])


def kind(annotation: Any) -> str:
    match get_origin(annotation), get_args(annotation):
        case (origin, options) if origin is Literal:
            return " · ".join(f"`{option}`" for option in options)
        case (origin, (inner, *_)) if origin is Annotated:
            return kind(inner)
        case (origin, (inner, *_)) if origin is tuple:
            return f"list of {kind(inner)}s"
        case (origin, _) if origin is dict:
            return "table"
        case (_, (inner, none)) if none is type(None):
            return kind(inner)
        case (origin, _) if origin is Union:
            raise TypeError(f"no words for {annotation}")
    return {str: "text", Path: "path", bool: "true or false", int: "whole number", float: "number"}[annotation]


def default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be set" if field.is_required() else "empty"
    match field.default:
        case "" | () | None:
            return "empty"
        case bool() as flag:
            return f"`{str(flag).lower()}`"
        case tuple() as several:
            return " ".join(f"`{one}`" for one in several)
    return f"`{field.default}`"


def sentence(field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"a key without a description: {field}")
    return field.description


if __name__ == "__main__":
    raise SystemExit(main())
