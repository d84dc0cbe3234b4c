"""What the parts of a running daemon share: who the node is, its disk thread, its spool, and the way to the machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from decaf_node.daemon.exchange import Post
from decaf_node.daemon.fetch import Fetch, check_header
from decaf_node.daemon.logs import printable
from decaf_node.daemon.node_id import short
from decaf_node.daemon.problems import Notices, Problems, problem_of
from decaf_node.daemon.said import Said
from decaf_node.daemon.spool import Spool
from decaf_node.daemon.store import Store
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.traffic import Traffic
from decaf_node.daemon.upload import Upload
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadData, DecafError
from decaf_node.mesh.events import Receipt, ReceiptReceived, Snapshot

Result = TypeVar("Result")
DISK_THREADS = 2  # one may be held by a long save; the edges go on with the other


@dataclass
class Me:
    """How this node introduces itself: what never changes, and what does.

    shares_loss: tell the training loss of the last round (privacy.share_metrics). label_parts: of our own examples;
    shares_labels: tell them (privacy.share_labels).
    """

    node: str
    name: str
    mesh: str
    address: str = ""
    schema: str = ""
    base: str = ""
    round: int = 0
    instance: str = field(default_factory=lambda: os.urandom(8).hex())
    revocations: int = 0
    shares_loss: bool = False
    loss: float | None = None
    shares_labels: bool = False
    label_parts: tuple[float, ...] = ()

    def introduction(self) -> Introduction:
        """Return the introduction of now."""
        return Introduction(
            node=self.node,
            name=self.name,
            mesh=self.mesh,
            schema=self.schema,
            round=self.round,
            address=self.address,
            instance=self.instance,
            revocations=self.revocations,
            loss=self.loss if self.shares_loss else None,
            base=self.base,
            label_parts=self.label_parts if self.shares_labels else (),
        )


class Host:
    """The surroundings of the edges (``exchange.Surroundings``), and the disk of everyone."""

    def __init__(
        self,
        me: Me,
        store: Store,
        spool: Spool,
        post: Post,
        name: Callable[[str], str],
        chunk_bytes: int,
        tasks: Tasks,
        least_rate: int,
        peers: int = 1024,
        upload: Upload | None = None,
    ) -> None:
        """peers: most members whose words are remembered; upload: None: snapshots leave at once."""
        self.me = me
        self.least_rate = least_rate
        self.upload = upload or Upload()
        self.store = store
        self.spool = spool
        self.problems = Problems()
        self.notices = Notices()
        self.traffic = Traffic()
        self.said = Said(peers)
        self._post = post
        self._name = name
        self._tasks = tasks
        self._chunk_bytes = chunk_bytes
        self._threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")

    @property
    def post(self) -> Post:
        """See ``Surroundings``."""
        return self._post

    def close(self) -> None:
        """Let the disk threads end after what they do."""
        self._threads.shutdown(wait=True)

    def introduction(self) -> Introduction:
        """See ``Surroundings``."""
        return self.me.introduction()

    def title(self, peer: str) -> str:
        """See ``Surroundings``."""
        name = self._name(peer)
        return f"{name} ({short(peer)})" if name else short(peer)

    def refused(self, peer: str, reason: str, message: str, by_us: bool) -> None:
        """See ``Surroundings``."""
        sentence = f"Edge with {self.title(peer)} refused{'' if by_us else ' by it'}: {printable(message)}"
        self.notices.say(reason, sentence, peer, logging.WARNING if by_us else logging.INFO)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """See ``Surroundings``."""
        return self._tasks.spawn(work)

    def count(self, sent: int = 0, received: int = 0) -> None:
        """See ``Surroundings``."""
        self.traffic.add(sent, received)

    async def turn(self, rest: int, wanted: Callable[[], bool]) -> int:
        """See ``Surroundings``."""
        return await self.upload.turn(min(rest, self._chunk_bytes), wanted)

    async def read(self, digest: str, offset: int, length: int) -> bytes:
        """See ``Surroundings``."""
        return await self.disk(lambda: self.spool.read(digest, offset, length))

    async def fetch(self, peer: str, snapshot: Snapshot) -> Fetch | None:
        """See ``Surroundings``."""
        if await self.disk(lambda: self._is_here(snapshot)):
            return None
        partial = await self.disk(lambda: self.spool.partial(snapshot.digest, snapshot.size_bytes, peer))
        self.problems.clear("spool")
        return Fetch(snapshot, partial, self.me.schema, self.disk)

    async def take_receipt(self, peer: str, receipt: Receipt) -> None:
        """See ``Surroundings``. The edge counts at the other end, so it counts here even if the disk fails us."""
        with contextlib.suppress(DecafError):
            await self.disk(lambda: self.store.complete_receipt(peer, receipt))
        await self.post(ReceiptReceived(peer, receipt))

    async def disk(self, work: Callable[[], Result]) -> Result:
        """Run blocking work in a disk thread. What is wrong with the disk is said in ``status`` too."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except DecafError as error:
            part = error.reason.partition(".")[0]
            if part == "disk" or error.reason == "spool.full":
                self.problems.set(part, problem_of(error, critical=True))
            raise

    def _is_here(self, snapshot: Snapshot) -> bool:
        if not self.spool.has(snapshot.digest):
            return False
        try:
            check_header(self.spool.path(snapshot.digest), snapshot, self.me.schema)
        except BadData:
            self.spool.path(snapshot.digest).unlink(missing_ok=True)
            return False
        return True
