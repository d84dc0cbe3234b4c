"""``decaf-node config backup-ca`` and ``restore-ca``: the key of the mesh, safe elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from decaf_node.cli.options import ConfigOption, JsonOption, StateOption, places_of
from decaf_node.cli.output import print_answer
from decaf_node.cli.ownership import hand_over
from decaf_node.errors import UsageError

PassphraseOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--passphrase-file", metavar="FILE", help="Whose first line is the passphrase (default: ask)."),
]


def backup_ca(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not be there yet.")],
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the key of the mesh, encrypted, to a file.

    Whoever has the file and its passphrase can let anyone in. Keep them apart from each other and from this device.

    Example: decaf-node config backup-ca /media/stick/lab-ca.backup
    """
    from decaf_node.daemon.backup import backup

    backup(places_of(config, state).state / "identity", file.absolute(), _passphrase(passphrase_file, new=True))
    _tell(f"The key of the mesh is in {file}, encrypted.", file, as_json)


def restore_ca(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    passphrase_file: PassphraseOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make this member the founder again, from a backup of the mesh's key.

    Example: decaf-node config restore-ca /media/stick/lab-ca.backup
    """
    from decaf_node.daemon.backup import restore

    places = places_of(config, state)
    restore(places.state / "identity", file.absolute(), _passphrase(passphrase_file, new=False))
    hand_over(places)
    _tell("This device holds the key of the mesh now; restart its daemon, or send it SIGHUP.", file, as_json)


def _passphrase(file: Path | None, new: bool) -> str:
    if file is None:
        return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True))
    try:
        return file.read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("backup.no-passphrase", f"The passphrase cannot be read from {file}: {error}.") from error


def _tell(sentence: str, file: Path, as_json: bool) -> None:
    print_answer({"file": str(file.absolute())}, sentence, as_json)
