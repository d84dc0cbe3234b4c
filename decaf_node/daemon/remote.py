"""The way to a daemon of another device, for the command line: mutual TLS with what this device has."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping

import grpc

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.certificates import pem_of
from decaf_node.daemon.client import Client, OpenChannel
from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.identity import load_identity
from decaf_node.daemon.papers import Papers, is_member, load_papers
from decaf_node.daemon.revocations import Revocations
from decaf_node.daemon.security import MutualTls, look, name_in, only_new_tls
from decaf_node.daemon.trust import load_outside
from decaf_node.errors import DaemonUnreachable, NotAllowed, TryAgain, UsageError
from decaf_node.places import Places
from decaf_node.settings import load_settings

SECONDS = 10.0  # for an answer; the network may be slow


def client_at(address: str, places: Places, environ: Mapping[str, str] = os.environ) -> Client:
    """Return a client of the daemon at ``address``, whose certificate must be of this device's mesh.

    Raises UsageError ``usage.bad-address``, DaemonUnreachable ``daemon.not-reached``, NotAllowed
    ``security.no-certificate`` where this device is no member, or ``security.revoked``.
    """
    return Client(address, SECONDS, _way_to(address, places, environ))


def channel_at(address: str, places: Places, environ: Mapping[str, str] = os.environ) -> grpc.Channel:
    """Return a channel to the daemon at ``address``, for scripts that use gRPC themselves.

    Raises what ``client_at`` does.
    """
    return _way_to(address, places, environ)([])


def _way_to(address: str, places: Places, environ: Mapping[str, str]) -> OpenChannel:
    if split(address) is None:
        raise UsageError("usage.bad-address", f"{address!r} is no address; write it as host:port.")
    only_new_tls()
    papers, tls = _papers(places, environ)
    try:
        shown = asyncio.run(look(address, papers.authority.decode()))
    except TryAgain as error:
        raise DaemonUnreachable(
            "daemon.not-reached", f"{error.message}; is it listed as monitor.listen in the settings there?"
        ) from None
    tls.admit(shown)
    credentials = grpc.ssl_channel_credentials(pem_of((shown,)), papers.key_pem, pem_of(papers.chain))
    options = [("grpc.ssl_target_name_override", name_in(shown)), ("grpc.enable_http_proxy", 0)]
    return lambda more: grpc.secure_channel(target(address), credentials, [*options, *more])


def _papers(places: Places, environ: Mapping[str, str]) -> tuple[Papers, MutualTls]:
    now = time.time()
    require_clock(now)
    folder = places.state / "identity"
    settings = load_settings(places.config, environ) if places.config.exists() else None
    if settings is not None and settings.security.ca is not None:
        papers, lists = load_outside(settings.security, now)
        return papers, MutualTls(papers, None, lists=lists)
    if not is_member(folder):
        raise NotAllowed(
            "security.no-certificate",
            "This device belongs to no mesh, so no other one answers it; let it join first, or name its state folder "
            "with --state.",
        )
    papers = load_papers(folder, load_identity(folder), now)
    return papers, MutualTls(papers, Revocations(folder, papers.authorities[0]))
