"""``decaf-node config``: are the settings right, and does what they point to exist? And the key of the mesh."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from decaf_node.cli.authority import backup_ca, restore_ca
from decaf_node.cli.options import ConfigOption, JsonOption, places_of
from decaf_node.cli.output import print_answer
from decaf_node.errors import BadData, BadSettings, NotAllowed

if TYPE_CHECKING:
    from decaf_node.settings import Settings

app = typer.Typer(help="Look at the settings; keep the key of the mesh safe.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look at the settings; keep the key of the mesh safe."""


app.command("backup-ca")(backup_ca)
app.command("restore-ca")(restore_ca)


@dataclass(frozen=True)
class Finding:
    """Something wrong with the settings: one sentence with its reason ID."""

    reason: str
    message: str


@app.command("check")
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look for mistakes in the settings.

    The model and the data that they name must be there too. Exit code 78 if something is wrong.

    Example: decaf-node config check --config desk.toml
    """
    path = places_of(config).config
    findings = find_problems(path)
    print_answer(
        {"settings": str(path), "findings": [asdict(finding) for finding in findings]},
        "\n".join(f"{finding.message} [{finding.reason}]" for finding in findings) or f"{path} is fine.",
        as_json,
    )
    if findings:
        raise typer.Exit(BadSettings.exit_code)


def find_problems(path: Path) -> list[Finding]:
    """Return everything wrong that can be seen without loading the model; of the file itself only the first."""
    from decaf_node.settings import load_settings

    try:
        settings = load_settings(path, os.environ)
    except BadSettings as error:
        return [Finding(error.reason, error.message)]
    return [
        *_model_problems(settings),
        *_task_problems(settings),
        *_data_problems(settings),
        *_security_problems(settings),
        *_privacy_problems(settings),
    ]


def _model_problems(settings: Settings) -> Iterator[Finding]:
    folder = settings.model.path
    if not folder.is_dir():
        yield Finding("model.missing", f"model.path: there is no folder {folder}.")
    elif settings.model.gguf_file and not (folder / settings.model.gguf_file).is_file():
        yield Finding("model.missing", f"model.gguf_file: there is no file {folder / settings.model.gguf_file}.")
    elif not settings.model.gguf_file and not (folder / "config.json").is_file():
        yield Finding("model.not-a-model", f"model.path: {folder} holds no model; its config.json is not there.")
    if settings.model.classifies and len(settings.model.labels) < 2:
        yield Finding("model.labels-missing", "model.labels: name at least two labels, the same ones at every node.")


def _task_problems(settings: Settings) -> Iterator[Finding]:
    from decaf_node.training.tasks.fitting import objections

    for objection in objections(settings):
        yield Finding(objection.reason, objection.message)


def _data_problems(settings: Settings) -> Iterator[Finding]:
    kind = "folder" if settings.model.sees_images else "file"
    for key, patterns in (("train", settings.data.train), ("evaluation", settings.data.evaluation)):
        for pattern in patterns:
            found = _matching(pattern)
            if not found:
                yield Finding("data.missing", f"data.{key}: no {kind} matches {pattern}.")
            for path in found:
                yield from _folder_problems(settings, path) if kind == "folder" else _file_problems(key, path)


def _file_problems(key: str, file: Path) -> Iterator[Finding]:
    if file.is_dir():
        yield Finding("data.unknown-format", f"data.{key}: {file} is a folder; name the files in it.")
    elif not os.access(file, os.R_OK):
        yield Finding("data.unreadable", f"data.{key}: {file} may not be read by this user.")
    elif not file.stat().st_size:
        yield Finding("data.empty", f"data.{key}: {file} is empty.")


def _folder_problems(settings: Settings, folder: Path) -> Iterator[Finding]:
    from decaf_node.training.tasks.folders import pictures_in

    data, labels = settings.data, settings.model.labels
    yield from _refused(lambda: pictures_in(folder, labels, data.label_column, data.text_column))


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    return sorted(root.glob(str(pattern.relative_to(root))))


def _security_problems(settings: Settings) -> Iterator[Finding]:
    from decaf_node.daemon.operators import operators_of
    from decaf_node.daemon.scraping import collector_of, metrics_address

    checks = (
        lambda: operators_of(settings, settings.security.insecure),
        lambda: metrics_address(settings),
        lambda: collector_of(settings),
    )
    for check in checks:
        yield from _refused(check)
    for path in (settings.security.ca, settings.security.certificate, settings.security.key):
        if path is not None and not path.is_file():
            yield Finding("certificate.missing", f"security: there is no file {path}.")
    if settings.security.crl is not None and not settings.security.crl.is_file():
        yield Finding("crl.missing", f"security.crl: there is no file {settings.security.crl}.")


def _refused(check: Callable[[], object]) -> Iterator[Finding]:
    try:
        check()
    except (BadData, BadSettings, NotAllowed) as error:
        yield Finding(error.reason, error.message)


def _privacy_problems(settings: Settings) -> Iterator[Finding]:
    from decaf_node.training.private.demands import objections

    for objection in objections(settings):
        yield Finding(objection.reason, objection.message)
