"""How connections between nodes are protected: mutual TLS, or, where a person wants it so, not at all.

gRPC shows a caller nothing of the certificate that has answered it. So a peer is looked at first, by a TLS connection
that ends after the handshake, and the gRPC channel then believes that very certificate and no other: whoever answers
on it has the key whose hash is the peer's node ID.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.certificates import check_time, inviters_of, load_shown, pem_of
from decaf_node.daemon.crl import RevocationLists
from decaf_node.daemon.logs import printable
from decaf_node.daemon.node_id import node_of, short
from decaf_node.daemon.papers import Papers
from decaf_node.daemon.revocations import Revocations
from decaf_node.errors import NotAllowed, TryAgain

LOOK_SECONDS = 3.0
ALPN = "h2"
VERSION = b"TLSv1.3"

# gRPC has no setting for the oldest TLS version. It does let the ciphers of TLS 1.2 be named, and those of 1.3 are not
# affected: with none left that an ECDSA key can be used with, 1.2 cannot be agreed on.
CIPHERS = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384"}


@dataclass(frozen=True)
class Line:
    """A channel to whoever is at an address. node: whose certificate answers on it; empty where nobody can know."""

    channel: grpc.aio.Channel
    node: str


class Security(Protocol):
    """What the dialler and the servers need to know of it."""

    @property
    def version(self) -> int:
        """Grows when channels made before are no good any more."""

    def listen(self, server: grpc.aio.Server, place: str) -> int:
        """Listen at ``host:port``; return the port. Raises RuntimeError if it is taken."""

    async def line(self, address: str, options: list[tuple[str, Any]]) -> Line:
        """Open a channel to ``address``. Raises TryAgain ``peer.silent``, NotAllowed for who is not let in."""

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Return the node ID of who calls; empty where nobody can know. Raises NotAllowed for who is not let in."""


class Plaintext:
    """No protection: everyone can read, and be anyone."""

    version = 0

    def listen(self, server: grpc.aio.Server, place: str) -> int:
        """See ``Security``."""
        return server.add_insecure_port(place)

    async def line(self, address: str, options: list[tuple[str, Any]]) -> Line:
        """See ``Security``."""
        return Line(grpc.aio.insecure_channel(target(address), options), "")

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """See ``Security``."""
        return ""


class MutualTls:
    """Both ends show a certificate of the mesh.

    revocations: None under an outside authority
    lists:       an outside authority's revocation lists, where there are any
    seen:        called with each member's ID and those of the inviters that its certificate rests on
    clock:       seconds since 1970
    """

    def __init__(
        self,
        papers: Papers,
        revocations: Revocations | None,
        seen: Callable[[str, tuple[str, ...]], None] = lambda node, inviters: None,
        clock: Callable[[], float] = time.time,
        lists: RevocationLists | None = None,
    ) -> None:
        self.version = 0
        self._lists = lists
        self._papers = papers
        self._revocations = revocations
        self._seen = seen
        self._clock = clock
        self._server = _server_configuration(papers)

    @property
    def papers(self) -> Papers:
        """What this node shows now."""
        return self._papers

    @property
    def lists(self) -> RevocationLists | None:
        """The outside authority's revocation lists of now."""
        return self._lists

    def renew(self, papers: Papers, lists: RevocationLists | None = None) -> None:
        """Show these from now on: to callers at once, to peers with the next channel; and heed these lists."""
        self._papers, self._server, self._lists = papers, _server_configuration(papers), lists
        self.refresh()

    def refresh(self) -> None:
        """Look at every peer anew: somebody may have been revoked."""
        self.version += 1

    def listen(self, server: grpc.aio.Server, place: str) -> int:
        """See ``Security``."""
        shown = self._server

        def changed() -> Any:
            """Return what is to be shown from now on, once: gRPC asks at every handshake."""
            # To answer with the same again is no harm in gRPC's documents, but crashes it when many connect at once.
            nonlocal shown
            if shown is self._server:
                return None
            shown = self._server
            return shown

        credentials = grpc.dynamic_ssl_server_credentials(self._server, changed, require_client_authentication=True)
        return server.add_secure_port(place, credentials)

    async def line(self, address: str, options: list[tuple[str, Any]]) -> Line:
        """See ``Security``."""
        certificate = await look(address, self._papers.authority.decode())
        node = self.admit(certificate)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=pem_of((certificate,)),
            private_key=self._papers.key_pem,
            certificate_chain=pem_of(self._papers.chain),
        )
        name = [("grpc.ssl_target_name_override", name_in(certificate))]
        return Line(grpc.aio.secure_channel(target(address), credentials, [*options, *name]), node)

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """See ``Security``."""
        return self.admit(self.shown(context))

    def shown(self, context: grpc.aio.ServicerContext[Any, Any]) -> x509.Certificate:
        """Return the certificate that a caller has shown. Raises NotAllowed ``security.no-certificate-shown``."""
        said = {key: list(values) for key, values in (context.auth_context() or {}).items()}
        certificates = said.get("x509_pem_cert", [])
        if len(certificates) != 1 or said.get("ssl_tls_version", [VERSION]) != [VERSION]:
            raise NotAllowed("security.no-certificate-shown", "Nodes speak TLS 1.3 and show a certificate.")
        return _read(bytes(certificates[0]))

    def admit(self, certificate: x509.Certificate) -> str:
        """Return whose certificate this is, of which TLS has checked the signatures.

        Raises NotAllowed ``security.revoked``, ``certificate.expired`` or ``certificate.not-yet-valid``.
        """
        check_time(certificate, self._clock())
        node = node_of(certificate.public_key())
        inviters = inviters_of(certificate)
        if self._revocations is not None and (why := self._revocations.refusal(node, *inviters)):
            raise NotAllowed("security.revoked", f"The node {short(node)} is no member any more: {why}.")
        if self._lists is not None and (why := self._lists.refusal(certificate)):
            raise NotAllowed("security.revoked", f"The node {short(node)} is not let in: {why}.")
        self._seen(node, inviters)
        return node


async def look(address: str, authority: str | None = None) -> x509.Certificate:
    """Return the certificate that is shown at ``address``; checked against ``authority`` (PEM), if it is given.

    Raises TryAgain: ``peer.silent``, ``peer.refused``, ``peer.no-tls``, ``peer.other-certificate``.
    """
    parts = split(address)
    assert parts is not None, "addresses are checked where they come in"
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(parts[0], parts[1], ssl=_context(authority), limit=1), LOOK_SECONDS
        )
    except asyncio.TimeoutError:
        raise TryAgain("peer.silent", f"{address} does not answer within {LOOK_SECONDS:g} s") from None
    except ssl.SSLCertVerificationError as error:
        problem = f"{address} shows a certificate that is no good here ({printable(error.verify_message)})"
        raise TryAgain("peer.other-certificate", problem) from None
    except ssl.SSLError as error:
        problem = f"{address} does not speak TLS 1.3 as nodes do ({printable(error.reason or str(error))})"
        raise TryAgain("peer.no-tls", problem) from None
    except ConnectionResetError:
        raise TryAgain("peer.no-tls", f"{address} ends the connection before it speaks TLS") from None
    except ConnectionRefusedError:
        raise TryAgain("peer.refused", f"nothing listens at {address}") from None
    except OSError as error:
        raise TryAgain("peer.silent", f"{address} does not answer ({error.strerror or error})") from None
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return load_shown(shown or b"")
    except NotAllowed:
        raise TryAgain("peer.other-certificate", f"{address} shows a certificate that cannot be read") from None
    finally:
        writer.transport.abort()


def name_in(certificate: x509.Certificate) -> str:
    """Return the name in a certificate: gRPC wants to see one, and an outside authority may choose any."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if found := [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]:
            return found[0]
    except (x509.ExtensionNotFound, ValueError):
        pass
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else ""


def only_new_tls() -> None:
    """Let gRPC agree on TLS 1.3 only, with keys like ours. To be called before its first connection."""
    os.environ.update(CIPHERS)


def _context(authority: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who it is, the key says
    context.set_alpn_protocols([ALPN])
    if authority is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authority)
    return context


def _server_configuration(papers: Papers) -> Any:
    return grpc.ssl_server_certificate_configuration([(papers.key_pem, pem_of(papers.chain))], papers.authority)


@lru_cache(maxsize=256)
def _read(pem: bytes) -> x509.Certificate:
    return load_shown(pem)
