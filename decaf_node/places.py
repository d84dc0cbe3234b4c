"""Where a node keeps its settings, its state, and what lives no longer than it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from decaf_node.errors import BadSettings
from decaf_node.installed import service_of, settings_meant

SOCKET_PATH_LIMIT_BYTES = 100  # Linux allows 107 for a Unix socket; our longest socket name is taken off


@dataclass(frozen=True)
class Places:
    """Where a node keeps its things: see "Files of a node" in the README. unit: the service whose places these are."""

    config: Path
    state: Path
    runtime: Path
    unit: str = ""

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def trainer_socket(self) -> Path:
        return self.runtime / "trainer.sock"

    @property
    def spool(self) -> Path:
        return self.runtime / "spool"


def find_places(
    environ: Mapping[str, str], config: Path | None = None, state: Path | None = None, runtime: Path | None = None
) -> Places:
    """Return the places of a node: as given, else systemd's, else those that belong to the settings.

    State and runtime folder are those of the service that runs with these settings, see ``installed``, and else the XDG
    folders of this user. Raises BadSettings if the runtime folder's path is too long for a Unix socket.
    """
    home = Path(environ.get("HOME", "/"))
    xdg_config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    xdg_state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
    xdg_runtime = environ.get("XDG_RUNTIME_DIR") or f"/tmp/decaf-node-{os.getuid()}"  # noqa: S108 - ``durable.refuse_shared`` looks
    chosen = config or settings_meant(xdg_config / "decaf-node/config.toml")
    service = service_of(chosen)
    own_state = service.state if service else xdg_state / "decaf-node"
    own_runtime = service.runtime if service else Path(xdg_runtime, "decaf-node")
    places = Places(
        config=chosen,
        state=(state or Path(environ.get("STATE_DIRECTORY") or own_state)).absolute(),
        runtime=(runtime or Path(environ.get("RUNTIME_DIRECTORY") or own_runtime)).absolute(),
    )
    if service and (places.state, places.runtime) == (service.state, service.runtime):
        places = replace(places, unit=service.unit)
    if len(os.fsencode(places.control_socket)) > SOCKET_PATH_LIMIT_BYTES:
        raise BadSettings(
            "settings.runtime-path-too-long",
            f"The runtime folder {places.runtime} is too long a path for a Unix socket; choose a shorter one.",
        )
    return places
