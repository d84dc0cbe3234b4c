"""Whether metrics are served, and where. Nothing of Prometheus is loaded where they are off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from decaf_node.daemon.addresses import is_loopback, split
from decaf_node.daemon.security import MutualTls, Security
from decaf_node.errors import BadSettings, NotAllowed
from decaf_node.settings import Settings

if TYPE_CHECKING:
    from decaf_node.daemon.metrics import Reading
    from decaf_node.daemon.metrics_server import MetricsServer
    from decaf_node.daemon.status import Status


def serve_metrics(settings: Settings, status: Status, tls: Security) -> MetricsServer | None:
    """Serve them, if the settings say where. Raises what ``metrics_address`` and ``MetricsServer`` do."""
    if (address := metrics_address(settings)) is None:
        return None
    from decaf_node.daemon.metrics import Reading, Validity
    from decaf_node.daemon.metrics_server import MetricsServer

    def read() -> Reading:
        valid = Validity.of(tls.papers.chain[0]) if isinstance(tls, MutualTls) else None
        return Reading(status.status(), status.peers(), valid)

    return MetricsServer(*address, read, settings.monitor.metrics_open)


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
