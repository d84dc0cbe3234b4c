"""The service of the system, as ``systemd/`` describes it: its user, its settings, its folders."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

NAME = "decaf-node"  # of the unit, its user, its group, and its folders
SETTINGS = Path("/etc", NAME)


@dataclass(frozen=True)
class Service:
    """unit: as ``systemctl`` takes it."""

    unit: str
    state: Path
    runtime: Path


def service_user() -> pwd.struct_passwd | None:
    """Return the user that the service runs as; None where it is not installed."""
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        return None


def service_of(settings: Path) -> Service | None:
    """Return what runs with these settings: ``/etc/decaf-node/config.toml``, or ``/etc/decaf-node/lab/config.toml``."""
    try:
        within = settings.absolute().relative_to(SETTINGS).parts
    except ValueError:
        return None
    match within:
        case ("config.toml",):
            return _service(NAME, NAME)
        case (instance, "config.toml"):
            return _service(f"{NAME}@{instance}", f"{NAME}-{instance}")
        case _:
            return None


def settings_meant(users: Path) -> Path:
    """Return the settings where none are named: this user's if there are some, else the service's.

    Those are meant where there are some; and by root wherever the service is installed, as ``init`` is to make them.
    """
    systems = SETTINGS / "config.toml"
    if os.path.exists(users):  # and not ``Path.exists``: it raises where the folder is closed to us
        return users
    return systems if os.path.exists(systems) or (os.geteuid() == 0 and service_user() is not None) else users


def _service(unit: str, folder: str) -> Service:
    return Service(unit, Path("/var/lib", folder), Path("/run", folder))
