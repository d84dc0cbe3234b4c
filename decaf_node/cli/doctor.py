"""``decaf-node doctor``: what is wrong with this node, the cause first, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_rich, print_text
from decaf_node.errors import DecafError

if TYPE_CHECKING:
    from rich.table import Table

    from decaf_node.daemon.doctor.examine import Examination
    from decaf_node.daemon.doctor.finding import Finding

MARKS = {
    "well": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failure": ("✗", "bold red"),
    "unseen": ("-", "dim"),
}


def doctor(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    bundle: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--bundle", metavar="FILE", help="Also write a support archive (.tar.gz), without secrets or data."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that a node needs, and say what is wrong and what to do.

    From the settings up to each known member; nothing is changed. Whether or not the daemon runs. The exit code is that
    of the first failure.

    Example: decaf-node doctor --bundle support.tar.gz
    """
    places = places_of(config, state, runtime)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when grpc is imported
    import asyncio

    from decaf_node.daemon.doctor.bundle import write_bundle
    from decaf_node.daemon.doctor.examine import examine

    examination = asyncio.run(examine(places, os.environ))
    if not as_json:
        print_rich(_table(examination.findings))
        print_text(_verdict(examination))
    try:
        packed = write_bundle(bundle.absolute(), examination) if bundle is not None else []
    except DecafError as error:
        if not as_json:
            raise
        said = {"reason": error.reason, "message": error.message}
        print_json({**_document(examination, None), "exit_code": error.exit_code, "error": said})
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json(_document(examination, bundle))
    elif bundle is not None:
        print_text(f"{bundle} holds {', '.join(packed)}; look through it before you send it.")
    raise typer.Exit(examination.exit_code)


def _document(examination: Examination, bundle: Path | None) -> dict[str, object]:
    return {
        "cause": examination.cause.reason if examination.cause is not None else "",
        "exit_code": examination.exit_code,
        "findings": [asdict(finding) for finding in examination.findings],
        "bundle": str(bundle) if bundle is not None else "",
    }


def _table(findings: tuple[Finding, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = ""
    for finding in findings:
        mark, style = MARKS[finding.mark]
        reason = f" [{finding.reason}]" if finding.reason else ""
        words = Text(f"{finding.subject}: {finding.message}{reason}")
        if finding.remedy:
            words.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(finding.layer if finding.layer != before else "", Text(mark, style=style), words)
        before = finding.layer
    return table


def _verdict(examination: Examination) -> str:
    counts = {mark: sum(finding.mark == mark for finding in examination.findings) for mark in MARKS}
    if examination.cause is None:
        return "Nothing is wrong." if not counts["warning"] else f"It works; warnings: {counts['warning']}."
    return f"Failures: {counts['failure']}, warnings: {counts['warning']}. Begin with {examination.cause.reason}."
