"""The first settings of a node, from what is given to ``init`` and ``join``; or those that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.toml import toml
from decaf_node.errors import BadSettings, NotAllowed, UsageError

if TYPE_CHECKING:
    from decaf_node.settings import DiscoverySection, Settings

ModelOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--model", metavar="DIR", help="Folder of the base model, for new settings."),
]
DataOption = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(
        "--data",
        metavar="PATH",
        help="Training data, for new settings: a file, or a folder of images; may be given several times.",
    ),
]
ListenOption = Annotated[
    str, typer.Option("--listen", metavar="ADDRESS", help="Where other nodes reach this one, for new settings.")
]
NameOption = Annotated[str, typer.Option("--name", help="What people call this node (default: the host's name).")]


@dataclass
class FirstSettings:
    """The settings at ``path``, or what was given for new ones.

    labels: of the mesh, once it has told them
    """

    path: Path
    model: Path | None
    data: list[Path] | None
    listen: str
    name: str
    labels: Sequence[str] = ()

    def check(self, mesh: str) -> Settings:
        """Return the settings that are there, or that new ones would be, with what the environment sets.

        Nothing is written. Raises UsageError ``settings.model-and-data`` if they are to be new and model or data are
        not given, BadSettings ``settings.other-mesh`` if they are of another mesh, and ``training.no-libraries`` where
        labels are to be found and nothing is there to read the data.
        """
        settings = self._settings(mesh)
        if settings.mesh.name != mesh:
            raise BadSettings(
                "settings.other-mesh",
                f"The settings {self.path}, with what the environment sets, are of the mesh {settings.mesh.name!r}, "
                f"not of {mesh!r}; set mesh.name there, or DECAF_NODE__MESH__NAME, or name another file with --config.",
            )
        return settings

    def take_labels(self, labels: object) -> None:
        """Let new settings have the mesh's labels, in its order; a device may hold only some of them."""
        if isinstance(labels, list):
            self.labels = [str(label) for label in labels]

    def discovery(self) -> DiscoverySection:
        """Return where to look by mDNS. Raises what ``check`` does, but for ``settings.other-mesh``."""
        return self._settings().discovery

    def _settings(self, mesh: str = "") -> Settings:
        """mesh: empty while it is not known."""
        from decaf_node.settings import complete, load_settings

        if self.path.exists():
            return load_settings(self.path, os.environ)
        given = "given on the command line and in the environment"
        return complete(self._document(mesh), os.environ, given, self.path.absolute().parent)

    @contextmanager
    def written(self, mesh: str) -> Iterator[None]:
        """Write new settings, unless there are some; take them away again if the block fails.

        Raises NotAllowed ``settings.cannot-write``.
        """
        with ExitStack() as undone:
            if not self.path.exists():
                self._write(mesh)
                undone.callback(self.path.unlink, missing_ok=True)
            yield
            undone.pop_all()

    def _write(self, mesh: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(toml(self._document(mesh)), encoding="utf-8")
        except OSError as error:
            raise NotAllowed(
                "settings.cannot-write", f"The settings cannot be written to {self.path}: {error}."
            ) from error

    def _document(self, mesh: str) -> dict[str, dict[str, object]]:
        from decaf_node.training.tasks.guess import task_of

        if self.model is None or not self.data:
            raise UsageError(
                "settings.model-and-data",
                "There are no settings yet; say with --model and --data what to train, or write the settings first.",
            )
        task = task_of(self.model, self.data)
        found = task.get("labels")
        if isinstance(found, list) and {*found} <= {*self.labels}:
            task["labels"] = self.labels
        return {
            **({"node": {"name": self.name}} if self.name else {}),
            **({"mesh": {"name": mesh}} if mesh else {}),
            "listen": {"address": self.listen},
            "model": {"path": str(self.model.absolute()), **task},
            "data": {"train": [str(path.absolute()) for path in self.data]},
        }
