"""Whether figures are served or sent, and where. Nothing of Prometheus or OpenTelemetry is loaded where none are."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from decaf_node.daemon.addresses import is_loopback, split
from decaf_node.daemon.logs import printable
from decaf_node.daemon.security import MutualTls, Security
from decaf_node.errors import BadSettings, NotAllowed
from decaf_node.settings import Settings

if TYPE_CHECKING:
    from decaf_node.daemon.metrics import Reading
    from decaf_node.daemon.metrics_server import MetricsServer
    from decaf_node.daemon.otlp import Sender
    from decaf_node.daemon.status import Status


def serve_metrics(settings: Settings, status: Status, tls: Security) -> MetricsServer | None:
    """Serve them, if the settings say where. Raises what ``metrics_address`` and ``MetricsServer`` do."""
    if (address := metrics_address(settings)) is None:
        return None
    from decaf_node.daemon.metrics_server import MetricsServer

    return MetricsServer(*address, _reader(status, tls), settings.monitor.metrics_open)


def send_metrics(settings: Settings, status: Status, tls: Security) -> Sender | None:
    """Send them to a collector, if the settings say where. Raises what ``collector_of`` does."""
    if (endpoint := collector_of(settings)) is None:
        return None
    from decaf_node.daemon.otlp import Sender
    from decaf_node.daemon.readings import Readings

    now = status.status()
    about = {"service.name": "decaf-node", "service.version": now.version, "service.instance.id": now.node}
    return Sender(endpoint, settings.monitor.otlp_every, Readings(_reader(status, tls)), about)


def _reader(status: Status, tls: Security) -> Callable[[], Reading]:
    from decaf_node.daemon.metrics import Reading, Validity

    def read() -> Reading:
        valid = Validity.of(tls.papers.chain[0]) if isinstance(tls, MutualTls) else None
        return Reading(status.status(), status.peers(), valid)

    return read


def collector_of(settings: Settings) -> str | None:
    """Return where figures are sent; None: nowhere. Raises BadSettings ``monitor.bad-otlp``, ``monitor.no-otlp``."""
    text = settings.monitor.otlp
    if not text:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:  # a port that is none
        good = False
    if not good or text != printable(text):
        raise BadSettings(  # without the text: a password may be in it
            "monitor.bad-otlp",
            "monitor.otlp is no place of a collector; write it as http://host:4318, and what it wants to know of who "
            "sends into the environment variable OTEL_EXPORTER_OTLP_HEADERS.",
        )
    if not _is_there("opentelemetry.exporter.otlp.proto.http"):
        raise BadSettings(
            "monitor.no-otlp",
            'monitor.otlp needs OpenTelemetry, which is not installed here: run pip install "decaf-node[otel]", '
            "or take monitor.otlp out.",
        )
    return text


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def metrics_address(settings: Settings) -> tuple[str, int] | None:
    """Return where metrics are served; None: nowhere.

    Raises BadSettings ``monitor.bad-address``, NotAllowed ``monitor.open-metrics``.
    """
    text = settings.monitor.metrics
    if not text:
        return None
    address = split(re.sub(r":0$", ":1", text))  # 0 takes a free one
    if address is None:
        raise BadSettings("monitor.bad-address", f"monitor.metrics {text!r} is no address; write it as host:port.")
    if not _is_local(address[0]) and not settings.monitor.metrics_open:
        raise NotAllowed(
            "monitor.open-metrics",
            f"monitor.metrics {text!r} would show this node's figures to everyone on that network, without TLS; use "
            "127.0.0.1, or write metrics_open = true under [monitor] too.",
        )
    return address[0], int(text.rpartition(":")[2])


def _is_local(host: str) -> bool:
    try:
        return is_loopback(host)
    except (OSError, UnicodeError):  # UnicodeError: what cannot be a name at all
        raise BadSettings("monitor.bad-address", f"monitor.metrics: the host {host!r} is not known.") from None
