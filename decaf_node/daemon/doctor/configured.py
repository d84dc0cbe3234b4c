"""The settings: can they be read, and do they fit together?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decaf_node.daemon.doctor.finding import Finding, failure, well
from decaf_node.daemon.listening import check_plaintext
from decaf_node.daemon.meeting import check_peers
from decaf_node.daemon.operators import operators_of
from decaf_node.daemon.scraping import collector_of, metrics_address
from decaf_node.errors import DecafError
from decaf_node.places import Places
from decaf_node.settings import Settings, load_settings

LAYER = "settings"


def look_at_settings(places: Places, environ: Mapping[str, str]) -> tuple[Settings | None, list[Finding]]:
    """Return the settings, where they can be read, and what was found."""
    path = str(places.config)
    try:
        settings = load_settings(places.config, environ)
    except DecafError as error:
        return None, [failure(LAYER, path, error)]
    objections: list[Callable[[], object]] = [
        lambda: check_peers(settings.mesh.peers),
        lambda: operators_of(settings, settings.security.insecure),
        lambda: metrics_address(settings),
        lambda: collector_of(settings),
    ]
    if settings.security.insecure:
        objections.append(lambda: check_plaintext(settings.listen.address, True))
    found = [finding for object_to in objections for finding in _objection(path, object_to)]
    listens = f"{settings.listen.address}:{settings.listen.port}"
    return settings, found or [well(LAYER, path, f"mesh {settings.mesh.name!r}, listens on {listens}")]


def _objection(path: str, object_to: Callable[[], object]) -> list[Finding]:
    try:
        object_to()
    except DecafError as error:
        return [failure(LAYER, path, error)]
    return []
