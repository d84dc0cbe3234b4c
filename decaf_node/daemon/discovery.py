"""Finding the other nodes of the mesh on the LAN by mDNS, and being found.

What the library leaves to us was measured: an interface that comes up later is never used, so addresses are watched;
after a partition a browser does not look again for minutes, so it is made anew every few seconds; and a node that was
killed stays listed, so what is found here may be dead. Only a goodbye is believed: silence of mDNS means nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from zeroconf import DNSQuestionType, ServiceStateChange, Zeroconf
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from decaf_node.daemon.addresses import join
from decaf_node.daemon.interfaces import Address, announced, best_first, speaking, usable_addresses
from decaf_node.settings import DiscoverySection

SERVICE = "_decaf-node._tcp.local."
VERSION = "1"
WATCH_SECONDS = 2.0
ASK_SECONDS = 3.0
ASK_ALL = DNSQuestionType.QM  # an answer to us alone may reach another program that has mDNS's port open as well
KNOWN_LIMIT = 1024
ADDRESS_LIMIT = 8

Found = Callable[[str, tuple[str, ...]], None]
Left = Callable[[str], None]
Warned = Callable[[str, str], None]

logger = logging.getLogger(__name__)


def log_warning(reason: str, message: str) -> None:
    logger.warning("%s [%s]", message, reason)


@dataclass(frozen=True)
class Known:
    """What is known of a node. server: changes with every start of it, so that a restart is seen."""

    server: str
    addresses: tuple[str, ...]


def service_of(name: str) -> AsyncServiceInfo | None:
    """Return the service of this name, of which nothing is known yet; None if no service can have it.

    Names come from whoever speaks on this network; an exception in zeroconf's callback would deafen it.
    """
    try:
        return AsyncServiceInfo(SERVICE, name)
    except ZeroconfError:
        return None


def read_service(zeroconf: Zeroconf, name: str) -> AsyncServiceInfo | None:
    """Return what zeroconf knows of a service; None if not enough."""
    info = service_of(name)
    return info if info is not None and info.load_from_cache(zeroconf) else None


class Discovery:
    """Announces one node and watches for the others of its mesh, from ``start`` to ``close``.

    found: a node under its addresses (``host:port``, best first); again when they change or it has started anew
    left:  a node said goodbye
    warn:  what a person should know (reason ID, sentence), once until it is over: ``discovery.no-interface``,
           ``discovery.failed``, ``discovery.not-announced``, ``discovery.cloned-identity``

    They are called in the event loop. Whatever the network does, nothing is raised: it is tried again.
    """

    def __init__(
        self,
        node: str,
        name: str,
        mesh: str,
        port: int,
        settings: DiscoverySection,
        found: Found,
        left: Left,
        listen: str = "0.0.0.0",  # noqa: S104 - is compared, never bound
        warn: Warned = log_warning,
    ) -> None:
        """listen: the address that the server listens on; no other is announced."""
        self._node = node
        self._name = name
        self._mesh = mesh
        self._port = port
        self._settings = settings
        self._found = found
        self._left = left
        self._listen = listen
        self._warn = warn
        self._schema = ""
        self._expecting = 0
        self._server = f"{secrets.token_hex(8)}.local."
        self._addresses: tuple[Address, ...] = ()
        self._known: dict[str, Known] = {}
        self._warned: set[str] = set()
        self._changing = asyncio.Lock()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._service: AsyncServiceInfo | None = None
        self._asking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Announce and look, as far as there is a network; go on watching for one. Nothing, if mDNS is off."""
        if self._settings.mdns:
            await self._look_around()
            self._spawn(self._watch())

    async def announce(self, schema: str) -> None:
        """From now on, say this schema fingerprint to others."""
        async with self._changing:
            self._schema = schema
            await self._tell()

    async def expect(self, port: int) -> None:
        """From now on, say that devices can join at this port; 0: that they cannot."""
        async with self._changing:
            self._expecting = port
            await self._tell()

    async def close(self) -> None:
        """Say goodbye and stop; a second time does nothing."""
        self._closed = True
        await self._end_tasks()
        async with self._changing:
            await self._shut()

    # --- the network of this host ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        refreshed = loop.time()
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, self._settings.refresh))
            await self._look_around()
            if loop.time() - refreshed >= self._settings.refresh:
                refreshed = loop.time()
                await self._browse()

    async def _look_around(self) -> None:
        """Follow the addresses of this host."""
        async with self._changing:
            before, self._addresses = self._addresses, usable_addresses(self._settings)
            if self._zeroconf is None or speaking(before) != speaking(self._addresses):
                await self._reopen()
            elif before != self._addresses:
                await self._tell()

    async def _reopen(self) -> None:
        """Open new sockets. Nobody is told goodbye: what is announced next takes the old place."""
        if self._zeroconf is not None and self._service is not None:
            self._zeroconf.zeroconf.registry.async_remove(self._service)
            self._service = None
        await self._shut()
        self._problem("discovery.no-interface", not self._addresses, self._no_interface())
        if self._addresses:
            await self._open()

    async def _open(self) -> None:
        try:
            self._zeroconf = AsyncZeroconf([address.ip for address in speaking(self._addresses)])
            await self._zeroconf.zeroconf.async_wait_for_start()
        except (OSError, RuntimeError, ZeroconfError) as error:  # RuntimeError: an interface went away just now
            self._failed(error)
            await self._shut()
            return
        self._problem("discovery.failed", False)
        await self._tell()
        await self._browse()

    async def _shut(self) -> None:
        """Stop; say goodbye to those that the service was announced to."""
        browser, self._browser = self._browser, None
        if browser is not None:
            await browser.async_cancel()
        if self._zeroconf is not None:
            try:
                await self._zeroconf.async_close()
            except (OSError, ZeroconfError) as error:
                logger.debug("mDNS did not close well: %r", error)
        self._zeroconf = self._service = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # nothing is expected to fail: the event loop is told

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    # --- this node ------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Announce the service, or what has changed of it."""
        if self._zeroconf is None:
            return
        ips = announced(self._addresses, self._listen)
        self._problem("discovery.not-announced", not ips, self._not_announced())
        service = self._described(ips)
        try:
            # Without probing, which takes a second: the name is a hash of this node's key.
            if self._service is not None:
                await self._zeroconf.async_update_service(service)
            elif ips:
                await self._zeroconf.async_register_service(service, cooperating_responders=True)
            else:
                return
        except (OSError, ZeroconfError) as error:
            self._failed(error)
            return
        self._service = service

    def _described(self, ips: list[str]) -> AsyncServiceInfo:
        return AsyncServiceInfo(
            SERVICE,
            f"{self._node}.{SERVICE}",
            parsed_addresses=ips,
            port=self._port,
            properties={"id": self._node, "mesh": self._mesh, "v": VERSION, "schema": self._schema}
            | ({"join": str(self._expecting)} if self._expecting else {}),
            server=self._server,
        )

    # --- the others -----------------------------------------------------------------------------------------------

    async def _browse(self) -> None:
        """Look anew; what is known already is told by the library once more."""
        if self._zeroconf is not None:
            if self._browser is not None:
                await self._browser.async_cancel()
            self._browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf, SERVICE, handlers=[self._changed], question_type=ASK_ALL
            )

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        node = name.removesuffix(f".{SERVICE}")
        if state_change is ServiceStateChange.Removed:
            self._forget(node)
            return
        info = service_of(name)
        if info is None:
            return
        if info.load_from_cache(zeroconf):
            self._seen(node, info)
        elif node not in self._asking and len(self._asking) < KNOWN_LIMIT:
            self._asking.add(node)
            self._spawn(self._ask(zeroconf, node, info))

    async def _ask(self, zeroconf: Zeroconf, node: str, info: AsyncServiceInfo) -> None:
        """Ask for what was not said. A node that does not answer is told of again when it does."""
        try:
            answered = await info.async_request(zeroconf, ASK_SECONDS * 1000, ASK_ALL)
        except (OSError, ZeroconfError):
            answered = False
        self._asking.discard(node)
        if answered:
            self._seen(node, info)
        else:
            self._known.pop(node, None)

    def _seen(self, node: str, info: AsyncServiceInfo) -> None:
        text = {key: value or b"" for key, value in info.properties.items()}
        if text.get(b"mesh") != self._mesh.encode() or text.get(b"id") != node.encode():
            self._forget(node)
        elif node == self._node:
            if info.server != self._server and self._problem("discovery.cloned-identity", True, self._cloned(info)):
                self._spawn(self._tell_again())
        else:
            ips = best_first(info.parsed_scoped_addresses(), self._addresses)
            places = tuple(join(ip, info.port or 0) for ip in ips[:ADDRESS_LIMIT])
            known = Known(info.server or "", places)
            if self._known.get(node) != known and (node in self._known or len(self._known) < KNOWN_LIMIT):
                self._known[node] = known
                self._found(node, places)

    async def _tell_again(self) -> None:
        """Let the clone hear of us: what it knows of itself keeps us from answering it."""
        async with self._changing:
            await self._tell()

    def _forget(self, node: str) -> None:
        if self._known.pop(node, None) is not None:
            self._left(node)

    # --- what a person should know --------------------------------------------------------------------------------

    def _problem(self, reason: str, present: bool, message: str = "") -> bool:
        """Warn of a problem when it comes up; tell whether that was now."""
        new = present and reason not in self._warned
        if new:
            self._warn(reason, message)
        (self._warned.add if present else self._warned.discard)(reason)
        return new

    def _failed(self, error: Exception) -> None:
        message = f"mDNS does not work right now ({error or type(error).__name__}); it is tried again."
        self._problem("discovery.failed", True, message)

    def _no_interface(self) -> str:
        which = ", ".join(self._settings.interfaces) or "all but " + ", ".join(self._settings.skip)
        return (
            f"No network interface can be used for discovery now ({which}); connect one, or name another in "
            "discovery.interfaces. Peers in mesh.peers are tried all the same."
        )

    def _not_announced(self) -> str:
        there = ", ".join(sorted({address.interface for address in self._addresses}))
        return (
            f"This node listens on {self._listen}, which others cannot reach over {there}, so it is not announced; "
            "set listen.address to let them."
        )

    def _cloned(self, info: AsyncServiceInfo) -> str:
        where = ", ".join(join(ip, info.port or 0) for ip in info.parsed_scoped_addresses())
        return (
            f"Another machine ({where}) announces the identity of this node ({self._name}), as after cloning a disk; "
            "remove the identity folder in the state folder of one of them."
        )
