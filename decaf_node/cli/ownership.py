"""Files that root makes for the system service, which runs as a user of its own."""

from __future__ import annotations

import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.daemon.durable import disk_errors
from decaf_node.errors import NotAllowed
from decaf_node.installed import service_user

if TYPE_CHECKING:
    from decaf_node.places import Places
    from decaf_node.settings import Settings

SETTINGS_MODE, FOLDER_MODE = 0o640, 0o755
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - looked for, not used


def hand_over(places: Places) -> None:
    """Give the service what ``init``, ``join`` and ``restore-ca`` have made as root.

    The state goes to its user alone, the settings may be read by its group. Nothing happens where the places are not
    those of a service.
    """
    user = service_user()
    if not places.unit or user is None or os.geteuid() != 0:
        return
    with disk_errors(places.state):
        _give(places.state, user.pw_uid, user.pw_gid)
        if places.config.is_file():
            os.chown(places.config, 0, user.pw_gid)
            places.config.chmod(SETTINGS_MODE)
            places.config.parent.chmod(FOLDER_MODE)  # whatever root's umask is


def _give(folder: Path, user: int, group: int) -> None:
    """Give the folder and what is in it away.

    Its owner may run meanwhile and change it: so no path is followed, and a file with another name is left alone.
    """
    for _, folders, files, here in os.fwalk(folder):
        os.fchown(here, user, group)
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
                    os.chown(name, user, group, dir_fd=here, follow_symlinks=False)


def refuse_root(places: Places) -> None:
    """Raise NotAllowed ``run.as-root`` if root would write files of its own among those of the service."""
    if places.unit and os.geteuid() == 0 and service_user() is not None:
        raise NotAllowed(
            "run.as-root",
            f"{places.state} belongs to the service {places.unit}, which does not run as root; start it with "
            f"`systemctl start {places.unit}`.",
        )


def hidden_from_service(places: Places, settings: Settings) -> str:
    """Return a sentence about model and data where the sandbox of the service hides them; nothing where it does not."""
    named = (settings.model.path, *settings.data.train, *settings.data.evaluation)
    hidden = [str(path) for path in named if places.unit and any(path.is_relative_to(home) for home in HIDDEN)]
    if not hidden:
        return ""
    return (
        f"The service sees no home directories and no /tmp but its own, so not {', '.join(hidden)}: move it, /srv is a "
        "good place, or show it by BindReadOnlyPaths (docs/operating.md)."
    )


def start_command(places: Places, config: Path | None, state: Path | None) -> str:
    """Return what to type to start the node whose places these are; config and state: as they were given."""
    if places.unit and service_user() is not None:
        return f"systemctl enable --now {places.unit}"
    given = ((name, path) for name, path in (("--config", config), ("--state", state)) if path is not None)
    return " ".join(("decaf-node run", *(f"{name} {shlex.quote(str(path))}" for name, path in given)))
